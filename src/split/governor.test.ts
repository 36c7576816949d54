/** The pace of splits beside clients whose latency is a function of what the splits do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { DEFAULT_POLICY, type SplitPolicy } from '../layout/split-policy.js';
import { ClientLoad } from '../vdisk/client-load.js';
import { Governor, Pace, untilOpenMs } from './governor.js';

const STEP_BLOCKS = 64;
const STEP_MS = 1;

interface Run {
  readonly seconds: number;
  readonly policies: readonly Partial<SplitPolicy>[];
  /** Milliseconds that a client's request takes while splits fill so much a second. */
  readonly latencyMs?: (bytesPerSecond: number) => number;
  /** From one turn of the clients to the next; default 10 ms. */
  readonly turnMs?: (bytesPerSecond: number) => number;
  /** Milliseconds of each second in which a consistency point is written. */
  readonly cpMs?: readonly [from: number, to: number];
  /** What a request takes then. */
  readonly cpLatencyMs?: number;
  /** Told of each step, with its time. */
  readonly onStep?: (ms: number) => void;
  /** Clients rest in these seconds. */
  readonly isQuiet?: (second: number) => boolean;
}

/** Bytes that each of the splits filled in each second. */
async function run(parts: Run): Promise<number[][]> {
  const { seconds, policies, latencyMs, turnMs, cpMs, cpLatencyMs, isQuiet, onStep } = parts;
  const clock = new VirtualClock();
  const load = new ClientLoad(clock);
  const startMs = clock.nowMs();
  const isTakingCp = (): boolean => {
    const ms = (clock.nowMs() - startMs) % 1000;
    return cpMs !== undefined && ms >= cpMs[0] && ms < cpMs[1];
  };
  const governor = new Governor(load, isTakingCp);
  load.isWatched = true;
  governor.groups = policies.length;
  const filled = policies.map(() => Array.from({ length: seconds }, () => 0));
  const second = (): number => Math.floor((clock.nowMs() - startMs) / 1000);
  let recent = 0;
  const split = async (index: number): Promise<void> => {
    const pace = new Pace({ ...DEFAULT_POLICY, ...policies[index] });
    while (second() < seconds) {
      const waitMs = governor.waitMs(pace);
      if (waitMs > 0) {
        await clock.sleep(Math.min(50, waitMs));
        continue;
      }
      const mine = filled[index] ?? [];
      mine[second()] = (mine[second()] ?? 0) + STEP_BLOCKS * BLOCK_BYTES;
      recent += STEP_BLOCKS * BLOCK_BYTES;
      onStep?.(clock.nowMs() - startMs);
      await clock.sleep(STEP_MS);
      governor.charge([pace], STEP_BLOCKS);
    }
  };
  const clients = async (): Promise<void> => {
    let sleptMs = 10;
    while (second() < seconds) {
      if (isQuiet?.(second()) === true) {
        await clock.sleep(10);
        continue;
      }
      // What the splits have done in the last milliseconds is what clients feel.
      const rate = (recent * 1000) / sleptMs;
      recent = 0;
      const ms =
        isTakingCp() && cpLatencyMs !== undefined ? cpLatencyMs : (latencyMs?.(rate) ?? 0.2);
      for (let request = 0; request < 40; request++) void load.count(clock.nowMs() - ms, undefined);
      sleptMs = turnMs?.(rate) ?? 10;
      await clock.sleep(sleptMs);
    }
  };
  await clock.run(Promise.all([clients(), ...policies.map((_, index) => split(index))]));
  governor.close();
  return filled;
}

function rate(filled: readonly number[] | undefined, from = 0): number {
  const part = (filled ?? []).slice(from);
  return part.reduce((sum, bytes) => sum + bytes, 0) / part.length;
}

test('now takes every step at once, rate keeps its bound, whatever clients do', async () => {
  const bound = { pace: 'rate', rateBytesPerSecond: 8 * MIB } as const;
  const [now, bounded] = await run({ seconds: 5, policies: [{ pace: 'now' }, bound] });
  assert.ok(rate(now) > 200 * MIB, `${rate(now)}`);
  assert.ok(Math.abs(rate(bounded) / MIB - 8) < 0.5, `${rate(bounded)}`);
});

test('idle works while clients are quiet, and at its floor while they are not', async () => {
  const isQuiet = (second: number): boolean => second >= 3 && second < 6;
  const policies = [{ pace: 'idle' }, { pace: 'idle', floorBytesPerSecond: 0 }] as const;
  const [floored, floorless] = await run({ seconds: 8, policies, isQuiet });
  const busy = rate(floored?.slice(0, 3));
  assert.ok(Math.abs(busy / MIB - 1) < 0.3, `${busy}`);
  assert.equal(rate(floorless?.slice(1, 3)), 0);
  for (const each of [floored, floorless]) {
    assert.ok(rate(each?.slice(4, 6)) > 200 * MIB);
    assert.ok(rate(each?.slice(7)) <= 2 * MIB);
  }
});

test('balanced goes as fast as latency allows, and no faster', async () => {
  // The quarter is used up at 60 MiB/s.
  const latencyMs = (bytes: number): number => 1 + (0.25 * bytes) / (60 * MIB);
  const [filled] = await run({ seconds: 60, policies: [{}], latencyMs });
  const steady = rate(filled, 20) / MIB;
  assert.ok(steady > 15 && steady < 60, `${steady} MiB/s`);
});

test('what clients wait before they are seen counts, whatever their requests take then', async () => {
  const turnMs = (bytes: number): number => (bytes > 0 ? 1.5 : 0.5);
  const [filled] = await run({ seconds: 30, policies: [{}], turnMs });
  assert.ok(rate(filled, 15) < 20 * MIB, `${rate(filled, 15) / MIB} MiB/s`);
});

test('a consistency point that falls into a split is not held against it', async () => {
  // So few seconds that none falls into what is alone: cycles begin a little later each time.
  const [filled] = await run({ seconds: 8, policies: [{}], cpMs: [700, 950], cpLatencyMs: 20 });
  assert.ok(rate(filled, 6) > 60 * MIB, `${rate(filled, 6) / MIB} MiB/s`);
});

test('nothing is filled beside clients in a consistency point, unless it takes long', async () => {
  const steps: number[] = [];
  const onStep = (ms: number): void => void steps.push(ms % 1000);
  const between = (from: number, to: number): number =>
    steps.filter((ms) => ms >= from && ms < to).length;
  await run({ seconds: 6, policies: [{}], cpMs: [400, 600], cpLatencyMs: 5, onStep });
  assert.equal(between(401, 600), 0);
  assert.ok(between(600, 999) > 100, `${between(600, 999)}`);
  steps.length = 0;
  await run({ seconds: 6, policies: [{}], cpMs: [100, 990], cpLatencyMs: 5, onStep });
  assert.equal(between(101, 599), 0);
  assert.ok(between(610, 990) > 50, `${between(610, 990)}`);
});

test('what consistency points cost clients counts on both sides, for as much as it is', async () => {
  // A fifth of the requests are so slow: no fill makes the worst hundredth any worse.
  const cp = { cpMs: [400, 600], cpLatencyMs: 20 } as const;
  const latencyMs = (bytes: number): number => (bytes > 0 ? 4 : 1);
  const [filled] = await run({
    seconds: 30,
    policies: [{}],
    turnMs: () => 1,
    latencyMs,
    ...cp,
  });
  assert.ok(rate(filled, 20) > 60 * MIB, `${rate(filled, 20) / MIB} MiB/s`);
});

test('balanced goes up to what there is when clients feel nothing', async () => {
  const [filled] = await run({ seconds: 60, policies: [{}] });
  assert.ok(rate(filled, 40) > 100 * MIB, `${rate(filled, 40) / MIB} MiB/s`);
});

test('balanced never falls below its floor, however much clients feel', async () => {
  const latencyMs = (bytes: number): number => (bytes > 0 ? 50 : 1);
  const policies = [{}, { floorBytesPerSecond: 4 * MIB }];
  const [plain, higher] = await run({ seconds: 60, policies, latencyMs });
  const rates = [rate(plain, 30) / MIB, rate(higher, 30) / MIB];
  assert.ok((rates[0] ?? 0) >= 0.7 && (rates[0] ?? 0) < 2, `${rates.join(', ')} MiB/s`);
  assert.ok((rates[1] ?? 0) >= 2.8 && (rates[1] ?? 0) < 5, `${rates.join(', ')} MiB/s`);
});

test('splits from different backing stores get equal parts', async () => {
  const latencyMs = (bytes: number): number => 1 + (0.25 * bytes) / (60 * MIB);
  const filled = await run({ seconds: 40, policies: [{}, {}, {}], latencyMs });
  const rates = filled.map((each) => rate(each, 10) / MIB);
  assert.ok(Math.max(...rates) < 1.2 * Math.min(...rates), rates.join(', '));
});

test('a window is open from its first minute to its last, over midnight too', () => {
  const hour = 3_600_000;
  const night = { fromMinute: 22 * 60, toMinute: 6 * 60 };
  assert.equal(untilOpenMs(undefined, 0), 0);
  assert.equal(untilOpenMs(night, 22 * hour), 0);
  assert.equal(untilOpenMs(night, 29.9 * hour), 0);
  assert.equal(untilOpenMs(night, 30 * hour), 16 * hour);
  assert.equal(untilOpenMs(night, 45 * hour), hour);
  const noon = { fromMinute: 12 * 60, toMinute: 13 * 60 };
  assert.equal(untilOpenMs(noon, 12.5 * hour), 0);
  assert.equal(untilOpenMs(noon, 13 * hour), 23 * hour);
});
