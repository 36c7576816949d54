import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { before, it } from 'node:test';
import { cutPower, traceWorkload } from './power-cut.js';
import type { Call, Trace } from './trace.js';

/** A container may forbid it even to root. Without strace the tests fail. */
const probe = spawnSync('strace', ['-o', '/dev/null', 'true']);
const mayTrace = probe.error !== undefined || probe.status === 0;
const skip = mayTrace ? false : 'needs the right to trace a process: CI has it';

let trace: Trace;
before(async () => {
  if (mayTrace) trace = await traceWorkload(1, 400);
});

/** The same trace, as if the calls had promised something else. */
function withCalls(change: (call: Call) => Call[]): Trace {
  return { ...trace, calls: trace.calls.flatMap(change) };
}

it('what was flushed is there, whatever the kernel had not written yet', { skip }, async () => {
  const report = await cutPower(trace, { seed: 1, cuts: 25 });
  assert.deepEqual(report.faults, []);
  assert.ok(report.writes > 100 && report.syncs > 10 && report.sectors > 100_000);
});

/**
 * True if some cut finds such a fault. Where the calls lie between each other is the machine's
 * affair, and a few cuts of one seed may all fall where nothing was lost.
 */
async function isNoticed(broken: Trace, fault: string): Promise<boolean> {
  for (let seed = 1; seed <= 40; seed++) {
    const { faults } = await cutPower(broken, { seed, cuts: 12 });
    if (faults.some((each) => each.includes(fault))) return true;
  }
  return false;
}

it('would notice a log that is not durable when its write is answered', { skip }, async () => {
  const volatile = withCalls((call) => [{ ...call, isDurable: false }]);
  assert.ok(await isNoticed(volatile, 'and may hold'));
});

it('would notice syncs that make nothing durable', { skip }, async () => {
  const unsynced = withCalls((call) => (call.kind === 'sync' ? [] : [call]));
  assert.ok(await isNoticed(unsynced, 'cut behind line'));
});
