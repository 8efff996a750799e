# A map of embeddings by UMAP.
rd-embed head=fit/head fasta="$1/rd_lightning/mini/sample.fasta" out=umap.h5 map=umap.html map_method=umap
grep -c "<figure" umap.html
