# Embeddings as Parquet.
rd-embed head=fit/head fasta=x.fasta out=emb.parquet
python -c "import pyarrow.parquet as p; print(p.read_schema('emb.parquet').names)"
