"""``rd_lightning.embed`` with a family of one: the 35M's raw embeddings, all else the same.

    python -m benchmarks.rivals.alone head=FOLDER fasta=FASTA out=FILE ...

The family exists in this process only.
"""

from __future__ import annotations

from rd_lightning.embed import main
from rd_lightning.families import ESM2, Family, load_esm2, register_family

FAMILY = "esm2_35M"

if __name__ == "__main__":
    register_family(Family(FAMILY, ESM2.members[1:2], load_esm2))
    main()
