"""What sentence-transformers on PyTorch costs, on one thread: the texts of `cargo bench -p retrieval -- embed`.

    pip install torch==2.15.0 transformers==5.23.0 sentence-transformers==6.2.0
    python retrieval/benches/sentence_transformers.py models/all-MiniLM-L6-v2
"""

import statistics
import sys
import time

import torch
from sentence_transformers import SentenceTransformer

TEXTS = 200
# As many as have 512 tokens together, as ours takes them.
BATCH = 4
WORDS = ["house", "water", "paper", "green"]


def text(number, words):
    return " ".join(WORDS[(number + word) % 4] for word in range(words))


torch.set_num_threads(1)
model = SentenceTransformer(sys.argv[1], device="cpu")
model.encode([text(0, 8)])
latencies = []
for number in range(200):
    started = time.perf_counter()
    model.encode([text(number, 8)])
    latencies.append(time.perf_counter() - started)
print(f"question of 8 tokens: p50 {statistics.median(latencies) * 1e3:.2f} ms")
started = time.process_time()
model.encode([text(number, 128) for number in range(TEXTS)], batch_size=BATCH)
spent = time.process_time() - started
print(f"texts of 128 tokens: {TEXTS / spent:.1f} a second of processor time")
