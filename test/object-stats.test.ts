/** Requests, space and cost of a store on an object store: counted, and as API and metrics say. */
import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../src/base/units.js';
import { objectFacts } from '../src/cli/object-stats.js';
import { costOf, costOfMonth, MONTH_MS, RequestPace } from '../src/control/costs.js';
import type { ObjectStats } from '../src/control/object-schemas.js';
import { MemoryObjectStore } from '../src/env/memory-object-store.js';
import { systemClock } from '../src/env/system-clock.js';
import { formatStore } from '../src/main/open-store.js';
import { TimedObjectStore } from '../src/main/timed-object-store.js';
import { ControlLab } from './support/control-lab.js';

const PRICES = { puts: 0.005, gets: 0.0004, storage: 0.023, egress: 0.09 };
const HOUR_MS = 3_600_000;

describe('costs', () => {
  test('by the list prices of Amazon', () => {
    const tera = { ms: MONTH_MS, keptBytes: 0, puts: 238_419, gets: 0, egressBytes: 0 };
    assert.equal(costOf(tera, PRICES).total.toFixed(2), '1.19');
    const random = { ...tera, puts: 0, gets: 244e6 };
    assert.equal(costOf(random, PRICES).requests.toFixed(0), '98');
    const kept = { ...tera, puts: 0, keptBytes: 1e12, egressBytes: 1e9 };
    assert.deepEqual(costOf(kept, PRICES), {
      requests: 0,
      egress: 0.09,
      storage: 23,
      total: 23.09,
    });
  });

  test('a month goes on as the time that is given, with what is kept now', () => {
    const hour = { ms: HOUR_MS, keptBytes: 1e9, puts: 1000, gets: 10_000, egressBytes: 1e9 };
    const { requests, egress, storage } = costOfMonth(hour, PRICES);
    assert.ok(Math.abs(requests - 730 * 0.009) < 1e-9, String(requests));
    assert.ok(Math.abs(egress - 730 * 0.09) < 1e-9);
    assert.equal(storage, 0.023);
    assert.equal(costOfMonth({ ...hour, ms: 0 }, PRICES).requests, 0);
  });

  test('the pace is that of the last hour, and of less at the beginning', () => {
    let puts = 0;
    const sums = (): { puts: number; gets: number; egressBytes: number } => ({
      puts,
      gets: 0,
      egressBytes: 0,
    });
    const pace = new RequestPace(0);
    // One PUT a second for two hours, then two.
    let nowMs = 0;
    const goOn = (seconds: number, each: number): void => {
      for (let second = 0; second < seconds; second++) {
        nowMs += 1000;
        pace.note(nowMs, sums);
        puts += each;
      }
    };
    goOn(600, 1);
    assert.deepEqual(pace.since(nowMs, sums()), { ms: 600_000, ...sums() });
    goOn(6600, 1);
    goOn(3660, 2);
    const { ms, puts: inHour } = pace.since(nowMs, sums());
    assert.ok(ms >= HOUR_MS && ms <= HOUR_MS + 61_000, `${ms} ms`);
    assert.ok(Math.abs((inHour * 1000) / ms - 2) < 0.01, `${inHour} in ${ms} ms`);
    // Silence: what was asked before is no pace any more.
    nowMs += 3 * HOUR_MS;
    assert.ok(pace.since(nowMs, sums()).puts <= 2);
  });
});

describe('statistics of an object log', () => {
  test('API and metrics say what was asked of the object store, and what it costs', async () => {
    const memory = new MemoryObjectStore();
    await formatStore({ kind: 'objects', objects: memory, prefix: 's' }, { sizeBytes: 64 * MIB });
    const objects = new TimedObjectStore(memory, systemClock);
    const before = { ...memory.stats };
    const lab = await ControlLab.start({
      source: { kind: 'objects', objects, prefix: 's' },
      objectCounters: {
        meters: objects.meters,
        retries: () => 3,
        prices: PRICES,
        spent: () => objects.spent(),
      },
    });
    try {
      const disk = await lab.store.createVdisk('d', 4 * MIB);
      await disk.write(0, new Uint8Array(MIB).fill(7));
      await disk.flush();
      await lab.store.consistencyPoint();
      await lab.store.idle();
      const stats = (await lab.call('GET', '/v1/stats')).body.objects as ObjectStats;
      assert.equal(stats.requests.put.count, memory.stats.puts - before.puts);
      assert.equal(stats.requests.put.bytes, memory.stats.bytesPut - before.bytesPut);
      assert.equal(stats.requests.get.count, memory.stats.gets - before.gets);
      assert.equal(stats.requests.list.count, memory.stats.lists - before.lists);
      assert.equal(stats.retries, 3);
      assert.equal(stats.placedBytes, MIB);
      assert.equal(stats.writeAmplification, stats.requests.put.bytes / MIB);
      assert.ok(stats.keptBytes >= MIB + BLOCK_BYTES, `${stats.keptBytes} kept`);
      assert.equal(stats.liveRatio, stats.liveBytes / stats.keptBytes);
      const asked = stats.requests.put.count + stats.requests.list.count;
      const expected = (asked * 0.005 + stats.requests.get.count * 0.0004) / 1000;
      assert.ok(Math.abs((stats.cost?.sinceStart.requests ?? 0) - expected) < 1e-12);
      assert.ok((stats.cost?.month.storage ?? 0) > 0);
      const metrics = await text(await lab.open('GET', '/metrics'));
      assert.match(metrics, new RegExp(`^keiki_records_kept_bytes ${stats.keptBytes}$`, 'm'));
      assert.match(metrics, /^keiki_cost_month\{of="storage"\} [0-9.e-]+$/m);
      const facts = new Map(objectFacts(stats));
      assert.match(facts.get('requests') ?? '', /^\d+ PUT, \d+ GET, \d+ LIST, \d+ DELETE; 3 sent/);
      assert.match(facts.get('a month') ?? '', /^[0-9.]+ at the pace of the last hour: storage/);
      assert.equal(new Map(objectFacts({ ...stats, cost: null })).has('cost'), false);
    } finally {
      await lab.close();
    }
  });

  test('a store on a device has none', async () => {
    const lab = await ControlLab.start();
    try {
      assert.equal((await lab.call('GET', '/v1/stats')).body.objects, null);
      assert.doesNotMatch(await text(await lab.open('GET', '/metrics')), /keiki_records/);
    } finally {
      await lab.close();
    }
  });
});
