from main import Records
from wasmill.testing import Tester


def test_only_records_go_on():
    test = Tester(Records, '{"field": "n"}')
    test.send_all([("a", '{"n": 2}'), ("a", '{"n": 1}'), ("b", '{"n": 1}'), ("a", '{"n": 3}')])
    assert test.values() == [b'{"n": 2}', b'{"n": 1}', b'{"n": 3}']


def test_records_outlive_an_instance():
    test = Tester(Records, '{"field": "n"}')
    test.send("a", '{"n": 2}')
    test.restart()
    test.send("a", '{"n": 1}')
    assert len(test.values()) == 1


def test_an_event_without_the_number_is_rejected():
    test = Tester(Records, '{"field": "n"}')
    test.send("a", "{}")
    assert test.rejected() == ["field `n` is missing, expected a number"]
