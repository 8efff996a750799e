"""Search among embeddings: a prefix shortlists, the full width ranks."""

from .arrays import ArrayReader
from .build import build_index
from .index import PreparedIndex
from .result import SearchResult
from .search import search

__all__ = ["ArrayReader", "PreparedIndex", "SearchResult", "build_index", "search"]
