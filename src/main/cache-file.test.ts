/** The cache file of a store on an object store, from open to open. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { LogEvent } from '../env/log-sink.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { readSettings } from './config.js';
import { objectLogOptions } from './object-log-options.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

test('blocks that were read are read from the cache file after a restart', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'keiki-cache-'));
  try {
    const settings = readSettings({
      flags: { 'store.cache-file': join(folder, 'cache'), 'store.cache-size': '16M' },
      environment: {},
      file: undefined,
    });
    const objects = new MemoryObjectStore();
    const source = { kind: 'objects', objects, prefix: 's' } as const;
    await formatStore(source, { sizeBytes: 64 * MIB });
    const open = async (): Promise<Store> =>
      openStore(source, { ...(await objectLogOptions(settings, () => undefined)) });
    let store = await open();
    const bytes = new Uint8Array(4 * MIB);
    seededRandom(1).fill(bytes);
    await (await store.createVdisk('a', 4 * MIB)).write(0, bytes);
    await store.close();
    const readAll = async (): Promise<void> => {
      const block = new Uint8Array(BLOCK_BYTES);
      for (let step = 0; step < 1024; step++) {
        const at = ((step * 389) % 1024) * BLOCK_BYTES;
        await store.vdisk('a').read(at, block);
        assert.deepEqual(block, bytes.slice(at, at + BLOCK_BYTES));
      }
    };
    store = await open();
    await readAll();
    assert.ok((store.stats().cache?.misses ?? 0) > 900);
    await store.close();
    store = await open();
    const { gets } = objects.stats;
    await readAll();
    const { cache } = store.stats();
    assert.ok((cache?.fileHits ?? 0) > 900, JSON.stringify(cache));
    assert.ok(objects.stats.gets - gets < 100, `${objects.stats.gets - gets} GETs`);
    await store.close();
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('what is at the path and is no cache is left alone', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'keiki-cache-'));
  try {
    const path = join(folder, 'precious');
    const content = new Uint8Array(16 * MIB).fill(5);
    await writeFile(path, content);
    const settings = readSettings({
      flags: { 'store.cache-file': path, 'store.cache-size': '16M' },
      environment: {},
      file: undefined,
    });
    const events: LogEvent[] = [];
    const { cache } = await objectLogOptions(settings, (event) => events.push(event));
    assert.equal(cache, undefined);
    assert.match(events[0]?.message ?? '', /it is no cache of 16 MiB/);
    assert.deepEqual(new Uint8Array(await readFile(path)), content);
  } finally {
    await rm(folder, { recursive: true });
  }
});
