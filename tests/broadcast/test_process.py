"""The sender beside the first rank."""

from golongrl.broadcast.process import POD_IP, reachable


def test_a_sender_is_where_the_ranks_meet_unless_a_pod_says_where_it_is() -> None:
    assert reachable({"MASTER_ADDR": "10.0.0.7"}) == "10.0.0.7"
    assert reachable({"MASTER_ADDR": "127.0.0.1", POD_IP: "10.0.0.9"}) == "10.0.0.9"
