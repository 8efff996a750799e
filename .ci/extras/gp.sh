# A Gaussian process on the made-up assay of the extra before, with the fit in this folder.
rd-evaluate fit=fit assays=x.csv probes=gp 'representations=[rd]' schemes=random out=eval_gp
ls eval_gp/calibration.parquet
