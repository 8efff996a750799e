# Embeddings for scanpy, and a prefix of Parquet; no model runs for the second file.
rd-embed head=fit/head fasta=x.fasta out=emb.h5ad
python -c "import anndata; found = anndata.read_h5ad('emb.h5ad'); print(found); assert found.obsm"
rd-embed from=emb.h5ad out=levels.parquet layout=levels
python -c "import pyarrow.parquet as p; print(p.read_schema('levels.parquet').names)"
