"""SQLite under a crash: transactions, and afterwards what they left.

  sqlite-load.py write DATABASE DONE SEED    commits until the disk fails; DONE names what was committed
  sqlite-load.py verify DATABASE DONE        prints how many committed transactions are there

A transaction adds a row of random length with its hash, and rewrites an older one.
"""
import hashlib
import random
import sqlite3
import sys


def content(number, version):
    chance = random.Random(number * 1000003 + version)
    return chance.randbytes(chance.randrange(1, 9000))


def put(database, number, version):
    data = content(number, version)
    row = (number, version, data, hashlib.sha256(data).hexdigest())
    database.execute('INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)', row)


def write(path, done_path, seed):
    chance = random.Random(seed)
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    # FULL does not sync the folder behind the unlink that commits: the last transaction may go.
    database.execute('PRAGMA synchronous=EXTRA')
    database.execute(
        'CREATE TABLE IF NOT EXISTS items (number INTEGER PRIMARY KEY, version, data, hash)')
    (last,) = database.execute('SELECT coalesce(max(number), 0) FROM items').fetchone()
    with open(done_path, 'a', buffering=1) as done:
        print('begin', last, file=done)
        while True:
            last += 1
            database.execute('BEGIN')
            put(database, last, 0)
            if last > 1:
                put(database, chance.randrange(1, last), last)
            database.execute('COMMIT')
            print('done', last, file=done)


def verify(path, done_path):
    database = sqlite3.connect(path)
    (verdict,) = database.execute('PRAGMA integrity_check').fetchone()
    assert verdict == 'ok', verdict
    with open(done_path) as done:
        committed = max((int(line.split()[1]) for line in done), default=0)
    count = 0
    for number, version, data, digest in database.execute('SELECT * FROM items ORDER BY number'):
        count += 1
        assert number == count, f'transaction {count} is missing'
        assert data == content(number, version), f'row {number} is not what was written'
        assert hashlib.sha256(data).hexdigest() == digest, f'row {number} has another hash'
    assert committed <= count <= committed + 1, f'{committed} were committed, {count} are there'
    print(count)


if sys.argv[1] == 'write':
    write(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    verify(sys.argv[2], sys.argv[3])
