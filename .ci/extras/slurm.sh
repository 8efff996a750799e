# Two parts of a fit as jobs of submitit, here as processes of its local launcher, added up.
rd-fit -m hydra/launcher=submitit_local hydra.launcher.timeout_min=10 part=1/2,2/2 out=sweep target=200K data.num_sequences=50
rd-merge sweep/0 sweep/1 out=merged
ls merged/head
