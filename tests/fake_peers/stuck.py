"""Never answers, and spins."""

WAYS = ()


def find():
    while True:
        pass
