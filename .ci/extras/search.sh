# Nearest neighbours with FAISS, among the embeddings of the sequences in this folder.
rd-embed head=fit/head fasta=x.fasta out=search.h5
rd-search index=search.h5 query=x.fasta head=fit/head k=1 backend=faiss prefix=50K out=hits.tsv
cat hits.tsv
