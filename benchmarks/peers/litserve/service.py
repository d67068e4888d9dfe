"""LitServe around the same artifact, as its documentation has it: one API class, batched by the server.

    python service.py ARTIFACT PORT BATCH,TIMEOUT_S,WORKERS
"""

import sys

import litserve

from plimsoll.core import artifact

WAYS = ("1,0.0,1", "8,0.001,1", "32,0.005,1", "8,0.001,2")
"""Largest batch, seconds to wait for one to fill, and worker processes."""


class Api(litserve.LitAPI):
    def setup(self, device):
        self.predictor = artifact.load(sys.argv[1])

    def decode_request(self, request):
        return request["texts"]

    def batch(self, inputs):
        return inputs

    def predict(self, x):
        if not x or isinstance(x[0], str):  # one request, where nothing is batched
            return self.predictor.predict(x)
        answers = iter(self.predictor.predict([text for texts in x for text in texts]))
        return [[next(answers) for _ in texts] for texts in x]

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"predictions": [p.record() for p in output]}


if __name__ == "__main__":
    batch, wait_s, workers = sys.argv[3].split(",")
    api = Api(max_batch_size=int(batch), batch_timeout=float(wait_s))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(workers))
    server.run(host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="error",
               generate_client_file=False)
