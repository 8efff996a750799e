# A head as ONNX, checked by ONNX Runtime.
python - <<'PYTHON'
from rd_lightning import RDHead
from rd_lightning.export import to_onnx

to_onnx(RDHead.from_pretrained("fit/head"), "head.onnx")
PYTHON
ls head.onnx
