# Reports to look at in a browser, of a fit and of a file of embeddings.
rd-fit out=reported target=200K data.num_sequences=50 report=true
rd-embed head=fit/head fasta="$1/rd_lightning/mini/sample.fasta" out=pages.h5 level=50K map=map.html
grep -c "<figure" reported/report.html map.html
