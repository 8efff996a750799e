# Two models with random weights, ESM C's where transformers has them, and one of the bundled family,
# through the commands.
python - <<'PYTHON'
import transformers

for name, width in (("S", 8), ("L", 16)):
    shape = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2}
    if hasattr(transformers, "EsmcModel"):
        config = transformers.EsmcConfig(**shape, intermediate_size=2 * width)
        transformers.EsmcModel(config).save_pretrained(name)
        transformers.EsmcTokenizer().save_pretrained(name)
        continue
    config = transformers.EsmConfig(
        **shape,
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        intermediate_size=4 * width,
        position_embedding_type="rotary",
    )
    transformers.EsmModel(config, add_pooling_layer=False).save_pretrained(name)
PYTHON
members='family.members=[{name:S,path:S},{name:L,path:L},mini/800K]'
rd-fit family=hugging_face "$members" data.num_sequences=20 out=hugging_face
printf '>a\nMKTAYIAKQR\n>b\nMKV\n' > hugging_face.fasta
rd-embed head=hugging_face/head family=hugging_face "$members" fasta=hugging_face.fasta out=hugging_face.h5
rm -r S L hugging_face hugging_face.fasta hugging_face.h5
