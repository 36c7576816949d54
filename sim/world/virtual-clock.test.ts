import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededRandom } from '../../src/env/seeded-random.js';
import { DeadlockError, VirtualClock } from './virtual-clock.js';

describe('virtual clock', () => {
  test('events happen in order of time, then of request; time is theirs', async () => {
    const clock = new VirtualClock();
    const happened: string[] = [];
    const at = (delayMs: number, name: string): void => {
      clock.setTimer(delayMs, () => happened.push(`${name}@${clock.nowMs()}`));
    };
    at(5, 'a');
    at(1, 'b');
    at(5, 'c');
    at(0, 'd');
    at(1, 'e');
    await clock.run(clock.sleep(10));
    assert.deepEqual(happened, ['d@0', 'b@1', 'e@1', 'a@5', 'c@5']);
    assert.equal(clock.nowMs(), 10);
    assert.equal(clock.eventsRun, 6);
  });

  test('the heap sorts any set of events as a sort does', async () => {
    const random = seededRandom(1);
    for (let turn = 0; turn < 50; turn++) {
      const clock = new VirtualClock();
      const delays = Array.from({ length: random.below(200) }, () => random.below(40));
      const happened: number[][] = [];
      delays.forEach((delayMs, index) => {
        clock.setTimer(delayMs, () => happened.push([clock.nowMs(), index]));
      });
      await clock.run(clock.sleep(100));
      const sorted = delays
        .map((delayMs, index) => [delayMs, index] as const)
        .sort(([a, first], [b, second]) => a - b || first - second);
      assert.deepEqual(happened, sorted);
    }
  });

  test('an event begins when all promise reactions of the one before have run', async () => {
    const clock = new VirtualClock();
    const happened: string[] = [];
    for (const name of ['a', 'b', 'c']) {
      clock.setTimer(1, () => {
        void (async () => {
          // Far more turns than any fixed number of awaits would wait for.
          for (let turn = 0; turn < 5000; turn++) await undefined;
          happened.push(name);
        })();
        happened.push(name.toUpperCase());
      });
    }
    await clock.run(clock.sleep(2));
    assert.deepEqual(happened, ['A', 'a', 'B', 'b', 'C', 'c']);
  });

  test('the same, across the turns of the event loop', async () => {
    const clock = new VirtualClock();
    let isSettled = true;
    for (let event = 0; event < 2000; event++) {
      clock.setTimer(event / 100, () => {
        assert.equal(isSettled, true, `event ${event}`);
        isSettled = false;
        void (async () => {
          for (let turn = 0; turn < 20; turn++) await undefined;
          isSettled = true;
        })();
      });
    }
    await clock.run(clock.sleep(100));
    assert.equal(clock.eventsRun, 2001);
  });

  test('a cancelled timer does not call back, nor does it move time', async () => {
    const clock = new VirtualClock();
    let calls = 0;
    const timer = clock.setTimer(50, () => calls++);
    clock.setTimer(10, () => timer.cancel());
    await clock.run(clock.sleep(20));
    await assert.rejects(clock.run(new Promise(() => undefined)), DeadlockError);
    assert.equal(calls, 0);
    assert.equal(clock.nowMs(), 20);
  });

  test('yield lets everything of the same moment go first', async () => {
    const clock = new VirtualClock();
    const happened: string[] = [];
    clock.setTimer(0, () => happened.push('timer'));
    const work = (async () => {
      await clock.yield();
      happened.push('after yield');
    })();
    await clock.run(work);
    assert.deepEqual(happened, ['timer', 'after yield']);
    assert.equal(clock.nowMs(), 0);
  });

  test('a run settles as the promise does, and the next one goes on', async () => {
    const clock = new VirtualClock();
    assert.equal(await clock.run(clock.sleep(1).then(() => 'value')), 'value');
    const failing = clock.sleep(1).then(() => {
      throw new RangeError('failed');
    });
    await assert.rejects(clock.run(failing), RangeError);
    assert.equal(await clock.run(Promise.resolve(7)), 7);
    assert.equal(clock.nowMs(), 2);
  });

  test('what throws in an event ends the run', async () => {
    const clock = new VirtualClock();
    clock.setTimer(1, () => {
      throw new RangeError('in an event');
    });
    await assert.rejects(clock.run(clock.sleep(5)), RangeError);
    await clock.run(clock.sleep(5));
  });

  test('waiting for what cannot come is a deadlock, and says when', async () => {
    const clock = new VirtualClock();
    const work = clock.sleep(3).then(() => new Promise<never>(() => undefined));
    await assert.rejects(clock.run(work), (error: unknown) => {
      return error instanceof DeadlockError && error.message.startsWith('at 3.000 ms, after 1');
    });
  });

  test('waiting for time without letting it pass ends', async () => {
    const clock = new VirtualClock();
    let isOver = false;
    clock.setTimer(1, () => {
      isOver = true;
    });
    const spin = async (): Promise<void> => {
      while (!isOver) await clock.yield();
    };
    await assert.rejects(clock.run(spin()), /time passes/);
  });

  test('one run at a time', async () => {
    const clock = new VirtualClock();
    const first = clock.run(clock.sleep(1));
    assert.throws(() => void clock.run(clock.sleep(1)), /one run/);
    await first;
  });

  test('a machine without power is not called back', async () => {
    const clock = new VirtualClock();
    const machine = clock.machine();
    const happened: string[] = [];
    machine.setTimer(1, () => happened.push('before'));
    machine.setTimer(3, () => happened.push('after'));
    const cancelled = machine.setTimer(1, () => happened.push('cancelled'));
    cancelled.cancel();
    void machine.yield().then(() => happened.push('yield before'));
    clock.setTimer(2, () => {
      machine.powerOff();
      void machine.yield().then(() => happened.push('yield after'));
    });
    await clock.run(clock.sleep(10));
    assert.deepEqual(happened, ['yield before', 'before']);
    assert.equal(machine.nowMs(), 10);
  });
});
