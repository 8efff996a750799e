# rd-evaluate on a made-up assay, with the fit in this folder.
python - <<'PYTHON'
import random

random.seed(0)
wild = "MKTAYIAKQRQISFVKSHFSRQLEERLGLI"
with open("x.csv", "w") as file:
    file.write("mutant,mutated_sequence,DMS_score\n")
    for place, old in enumerate(wild):
        for new in random.sample("ACDEFGHILNPQSTVWY".replace(old, ""), 4):
            score = (new in "AVILFW") + random.gauss(0, 0.3)
            file.write(f"{old}{place + 1}{new},{wild[:place]}{new}{wild[place + 1:]},{score}\n")
PYTHON
rd-evaluate fit=fit assays=x.csv advise=true out=eval
ls eval
