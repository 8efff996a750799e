# The example of a server, asked over HTTP as a client asks it.
HEAD=fit/head uvicorn --app-dir "$1/examples" --port 8765 serve_embeddings:app &
server=$!
trap 'kill "$server"' EXIT
python - <<'PYTHON'
import json
import time
import urllib.request

asked = urllib.request.Request(
    "http://127.0.0.1:8765/embed",
    json.dumps({"sequences": ["MKTAYIAKQR", "MKV"], "level": "50K"}).encode(),
    {"Content-Type": "application/json"},
)
for left in reversed(range(60)):
    try:
        answer = json.load(urllib.request.urlopen(asked))
        break
    except urllib.error.URLError:
        if not left:
            raise
        time.sleep(1)
assert answer["width"] == 32 and [len(row) for row in answer["embeddings"]] == [32, 32]
PYTHON
