# Two encoders of Hugging Face with random weights as a family.
python - <<'PYTHON'
from transformers import EsmConfig, EsmModel

for name, width in (("S", 8), ("L", 16)):
    config = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=4 * width,
        position_embedding_type="rotary",
    )
    EsmModel(config, add_pooling_layer=False).save_pretrained(name)
PYTHON
rd-fit family=hugging_face 'family.members=[{name:S,path:S},{name:L,path:L}]' data.num_sequences=20 out=hugging_face
