"""What `helm test` runs inside the cluster: do Redis and the reward service work as the loop needs?

Each check has a deadline and prints one line. Redis: the password is right, writes to the append-only file are
confirmed (WAITAOF), nothing is evicted. Reward service: it is ready, and a right answer scores above a wrong one.
"""

import json
import os
import sys
import urllib.request

import redis

TIMEOUT_S = 10


def secret(name: str) -> str:
    """Without the line break of the file that a Secret was made from, as the services read it."""
    return os.environ.get(name, "").rstrip("\r\n")


def check_redis() -> str:
    client = redis.Redis.from_url(
        os.environ["GOLONGRL_REDIS_URL"],
        password=secret("GOLONGRL_REDIS_PASSWORD") or None,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
    )
    key = f"golongrl-smoke:{os.getpid()}"
    client.set(key, b"1", ex=60)
    local, _ = client.execute_command("WAITAOF", 1, 0, TIMEOUT_S * 1000)
    client.delete(key)
    if local != 1:
        raise RuntimeError("WAITAOF: the write did not reach the append-only file in time")
    policy = client.info("memory").get("maxmemory_policy")
    if policy != "noeviction":
        raise RuntimeError(f"maxmemory-policy is {policy}: Redis could evict samples; set noeviction")
    return "password, append-only file and noeviction are as needed"


def check_reward() -> str:
    base = os.environ["GOLONGRL_REWARD_URL"]
    with urllib.request.urlopen(f"{base}/readyz", timeout=TIMEOUT_S) as answer:
        if answer.status != 200:
            raise RuntimeError(f"/readyz answered {answer.status}")
    truth = {"doc_ids": [], "golden_label": "42", "summary": "English"}
    item = {"data_source": "EM", "ground_truth": truth, "extra_info": {"reward_mode": "EM"}}
    body = {"mode": "strict", "items": [{"id": name, "response": text, **item} for name, text in ANSWERS.items()]}
    request = urllib.request.Request(
        f"{base}/v1/score",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {secret('GOLONGRL_REWARD_TOKEN')}"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        results = {result["id"]: result for result in json.load(answer)["results"]}
    if any(result["status"] != "scored" for result in results.values()):
        raise RuntimeError(f"answers were left unscored: {results}")
    if not results["right"]["score"] > results["wrong"]["score"]:
        raise RuntimeError(f"a right answer does not score above a wrong one: {results}")
    return "a right answer scores above a wrong one"


ANSWERS = {"right": "</think>42", "wrong": "</think>41"}


def main() -> int:
    failed = 0
    for name, check in {"redis": check_redis, "reward": check_reward}.items():
        try:
            print(f"ok: {name}: {check()}", flush=True)
        except (OSError, RuntimeError, KeyError, redis.RedisError) as error:
            failed += 1
            print(f"error: {name}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
