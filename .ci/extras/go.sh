# A graph of terms from an OBO file.
cat >terms.obo <<'OBO'
format-version: 1.2

[Term]
id: GO:0000001
name: root
namespace: biological_process

[Term]
id: GO:0000002
name: leaf
namespace: biological_process
is_a: GO:0000001 ! root
OBO
python - <<'PYTHON'
from rd_lightning.evaluation.sae.ontology import read_obo

graph = read_obo("terms.obo")
assert graph.ancestors("GO:0000002") == {"GO:0000001", "GO:0000002"}
PYTHON
