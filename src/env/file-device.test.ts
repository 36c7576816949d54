import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { crc32 } from '../base/checksum.js';
import { isStoreError, type StoreErrorKind } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { Device } from './device.js';
import { type OpenFileOptions, openFileDevice } from './file-device.js';

const folder = mkdtempSync(join(tmpdir(), 'keiki-file-device-'));
after(() => rm(folder, { recursive: true }));

let files = 0;
function newPath(): string {
  return join(folder, `store-${++files}`);
}

const SPARSE: OpenFileOptions = { create: { sizeBytes: 8 * MIB, preallocate: false } };

function block(value: number): Uint8Array[] {
  return [new Uint8Array(BLOCK_BYTES).fill(value)];
}

function ofKind(kind: StoreErrorKind, ...mentions: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isStoreError(error, kind), String(error));
    for (const mention of mentions) assert.ok(error.message.includes(mention), error.message);
    return true;
  };
}

/** Descriptors of this process on the path. */
function descriptorsOf(path: string): string[] {
  return readdirSync('/proc/self/fd').filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`) === path;
    } catch {
      return false;
    }
  });
}

describe('file device: create and open', () => {
  test('sparse: the size is there, the space is not taken', async () => {
    const path = newPath();
    await (await openFileDevice(path, SPARSE)).close();
    const { size, blocks, mode } = await stat(path);
    assert.equal(size, 8 * MIB);
    assert.ok(blocks * 512 < MIB);
    assert.equal(mode & 0o777, 0o600);
  });

  test('preallocated: the space is taken, with progress, also for an odd last piece', async () => {
    const path = newPath();
    const sizeBytes = 9 * MIB + BLOCK_BYTES;
    const progress: number[] = [];
    const onProgress = (writtenBytes: number): void => void progress.push(writtenBytes);
    const create = { sizeBytes, preallocate: true, onProgress };
    await (await openFileDevice(path, { create })).close();
    const { size, blocks } = await stat(path);
    assert.equal(size, sizeBytes);
    assert.ok(blocks * 512 >= sizeBytes);
    assert.deepEqual(progress, [4 * MIB, 8 * MIB, sizeBytes]);
    assert.ok((await readFile(path)).every((byte) => byte === 0));
  });

  test('create: refuses a path that is there, and leaves it alone', async () => {
    const path = newPath();
    await writeFile(path, 'precious');
    await assert.rejects(openFileDevice(path, SPARSE), ofKind('exists', path));
    assert.equal(await readFile(path, 'utf8'), 'precious');
  });

  test('create: refuses sizes and modes that make no sense, and makes nothing', async () => {
    const path = newPath();
    for (const sizeBytes of [0, -4096, 4095, 6000, Number.NaN, Infinity]) {
      const create = { sizeBytes, preallocate: false };
      await assert.rejects(openFileDevice(path, { create }), ofKind('invalid', path));
    }
    await assert.rejects(openFileDevice(path, { ...SPARSE, readOnly: true }), ofKind('invalid'));
    await assert.rejects(stat(path));
  });

  test('create: a file that cannot be made whole is removed', async () => {
    const path = newPath();
    // More than a file of this kind can have: ftruncate fails with EFBIG or EINVAL.
    const create = { sizeBytes: 2 ** 53 - BLOCK_BYTES, preallocate: false };
    await assert.rejects(openFileDevice(path, { create }), ofKind('device', path, 'create'));
    await assert.rejects(stat(path));
    assert.deepEqual(descriptorsOf(path), []);
  });

  test('open: what is not a file or block device is refused', async () => {
    const before = descriptorsOf('/dev/null');
    await assert.rejects(openFileDevice(newPath()), ofKind('not-found'));
    await assert.rejects(openFileDevice(join(newPath(), 'x'), SPARSE), ofKind('not-found'));
    await assert.rejects(openFileDevice(folder), ofKind('invalid', 'directory'));
    await assert.rejects(openFileDevice(folder, { readOnly: true }), ofKind('invalid'));
    await assert.rejects(openFileDevice('/dev/null'), ofKind('invalid', '/dev/null'));
    assert.deepEqual(descriptorsOf('/dev/null'), before);
  });

  test('open: a size that is no multiple of 4096 is rounded down', async () => {
    const path = newPath();
    await writeFile(path, new Uint8Array(2 * BLOCK_BYTES + 100));
    const device = await openFileDevice(path);
    assert.equal(device.sizeBytes, 2 * BLOCK_BYTES);
    await device.close();
  });

  test('close: gives every descriptor back, also when called twice', async () => {
    const path = newPath();
    const device = await openFileDevice(path, SPARSE);
    assert.equal(descriptorsOf(path).length, 2);
    await Promise.all([device.close(), device.close()]);
    assert.deepEqual(descriptorsOf(path), []);
  });

  test('durable writes go through a descriptor of their own, opened O_DSYNC', async () => {
    const path = newPath();
    const device = await openFileDevice(path, SPARSE);
    const flags = descriptorsOf(path).map((name) => {
      const text = readFileSync(`/proc/self/fdinfo/${name}`, 'utf8');
      return Number.parseInt(/flags:\s+(\d+)/.exec(text)?.[1] ?? '', 8);
    });
    // Source: fcntl.h of Linux, O_DSYNC.
    assert.deepEqual(
      flags.map((flag) => (flag & 0o10000) !== 0),
      [false, true],
    );
    await device.close();
  });
});

describe('file device: errors', () => {
  test('a file truncated behind us: reads beyond its end fail, others do not', async () => {
    const path = newPath();
    const device = await openFileDevice(path, SPARSE);
    await device.write(0, block(7));
    await truncate(path, 10 * BLOCK_BYTES + 1000);
    const into = block(0);
    await device.read(0, into);
    assert.equal(into[0]?.[0], 7);
    const told = ofKind('device', path, `byte ${10 * BLOCK_BYTES + 1000}`, `${8 * MIB} bytes`);
    await assert.rejects(device.read(10 * BLOCK_BYTES, into), told);
    await assert.rejects(device.read(0, [new Uint8Array(MIB)]), told);
    await assert.rejects(device.read(MIB, into), ofKind('device', path, `byte ${MIB}`));
    await device.close();
  });

  test('read-only: reads, but neither writes nor syncs', async () => {
    const path = newPath();
    const writer = await openFileDevice(path, SPARSE);
    await writer.write(0, block(7));
    await writer.close();
    const device = await openFileDevice(path, { readOnly: true });
    const into = block(0);
    await device.read(0, into);
    assert.equal(into[0]?.[100], 7);
    await assert.rejects(device.write(0, into), ofKind('read-only', path));
    await assert.rejects(device.writeDurable(0, into), ofKind('read-only', path));
    await assert.rejects(device.sync(), ofKind('read-only', path));
    await device.close();
  });

  test('a write that fails: nothing is written or synced after it, reads go on', async () => {
    const report = await runLimited(WRITES);
    assert.match(report, /device: .*EFBIG/);
    assert.match(report, /then write: device: .*open it again/);
    assert.match(report, /then sync: device: .*open it again/);
    assert.match(report, /then read: 5\nthen closed\n$/);
  });
});

/** Writes beyond the file size limit and tells what happens. */
const WRITES = `
    const tell = (what) => (error) => console.log(what + error.kind + ': ' + error.message);
    const block = new Uint8Array(4096).fill(5);
    await device.write(0, [block]);
    await device.write(4 * 1024 * 1024, [block]).catch(tell(''));
    await device.write(0, [block]).catch(tell('then write: '));
    await device.sync().catch(tell('then sync: '));
    block.fill(0);
    await device.read(0, [block]);
    console.log('then read: ' + block[9]);
    await device.close();
    const again = await openFileDevice(path);
    await again.write(0, [block]);
    const calls = [again.sync(), again.sync(), again.write(4 * 1024 * 1024, [block])];
    const closing = again.close();
    await Promise.allSettled(calls);
    await closing;
    console.log('then closed');`;

/** Runs code with a new device in a process whose files end at 2 MiB (ulimit -f). */
async function runLimited(work: string): Promise<string> {
  const path = newPath();
  const module = fileURLToPath(new URL('./file-device.ts', import.meta.url));
  const code = `import(${JSON.stringify(module)}).then(async ({ openFileDevice }) => {
    process.on('SIGXFSZ', () => {});
    const path = ${JSON.stringify(path)};
    const device = await openFileDevice(path);
    ${work}
  });`;
  const device = await openFileDevice(path, SPARSE);
  await device.close();
  const nodeOptions = process.execArgv.filter((option) => !option.startsWith('--test'));
  const command = ['ulimit -f 2048; exec "$0" "$@"', process.execPath, ...nodeOptions, '-e', code];
  const limited = spawn('bash', ['-c', ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  let report = '';
  limited.stdout.on('data', (chunk: Uint8Array) => {
    report += Buffer.from(chunk).toString();
  });
  await once(limited, 'close');
  return report;
}

describe('file device: copies', () => {
  test('close waits for those under way', async () => {
    const path = newPath();
    const device = await openFileDevice(path, SPARSE);
    const bytes = new Uint8Array(256 * BLOCK_BYTES).fill(7);
    await device.write(0, [bytes]);
    const numbers = Array.from({ length: 256 }, (_, index) => index);
    const crcs = numbers.map(() => crc32(bytes.subarray(0, BLOCK_BYTES)));
    const copies = [2, 3, 4, 5].map((mib) =>
      device.copyBlocks({ from: numbers, to: numbers.map((index) => mib * 256 + index), crcs }),
    );
    await device.close();
    assert.deepEqual(await Promise.all(copies), [[], [], [], []]);
    const written = await readFile(path);
    assert.equal(Buffer.compare(written.subarray(5 * MIB, 6 * MIB), bytes), 0);
  });

  test('one that cannot be written is a failed write: nothing is written after it', async () => {
    const crc = crc32(new Uint8Array(BLOCK_BYTES));
    const report = await runLimited(`
      const copy = (to) => device.copyBlocks({ from: [0], to: [to], crcs: [${crc}] });
      for (const to of [256, 1024, 256]) {
        console.log(String(await copy(to).catch((error) => error.kind + ': ' + error.message)));
      }
      await device.write(0, [new Uint8Array(4096)]).catch((error) => console.log(error.message));
      await device.close();`);
    const [first, second, third, fourth] = report.split('\n');
    assert.equal(first, '');
    assert.match(second ?? '', /^device: .*copy of 1 to byte 4194304.*EFBIG/);
    for (const line of [third, fourth]) assert.match(line ?? '', /nothing is written since then/);
  });
});

describe('file device: syncs', () => {
  test('callers that arrive while a sync is under way share the next', async () => {
    const device: Device = await openFileDevice(newPath(), SPARSE);
    await device.write(0, block(1));
    const first = device.sync();
    const [second, third] = [device.sync(), device.sync()];
    assert.notEqual(first, second);
    assert.equal(second, third);
    const order: string[] = [];
    void first.then(() => order.push('first'));
    void second.then(() => order.push('second'));
    await third;
    assert.deepEqual(order, ['first', 'second']);
    const fourth = device.sync();
    assert.notEqual(fourth, third);
    await fourth;
    // Between the end of one and the start of the next there is no gap to fall into.
    for (let turn = 0; turn < 50; turn++) {
      await Promise.all([device.sync(), device.sync().then(() => device.sync()), device.sync()]);
    }
    await device.close();
  });
});
