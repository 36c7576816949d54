/** The lives of a server that is killed again and again, for the simulator's acts and its model. */
import { Contents } from '../../sim/content.js';
import { Coverage } from '../../sim/coverage.js';
import { Digest } from '../../sim/digest.js';
import { Life, type RunParts } from '../../sim/life.js';
import { Moments } from '../../sim/model/disk.js';
import { Model } from '../../sim/model/model.js';
import { Violation } from '../../sim/model/violation.js';
import { TIB } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import { systemClock } from '../../src/env/system-clock.js';
import type { RemoteStore } from './remote-store.js';

const ENDS_MS_MAX = 180_000;

export class RemoteLives {
  readonly parts: RunParts;
  #faultsSeen = 0;

  constructor(random: Random, trace: (line: string) => void) {
    this.parts = {
      random,
      model: new Model({ contents: new Contents(), moments: new Moments() }),
      coverage: new Coverage(),
      digest: new Digest(),
      sizeBytesMax: TIB,
      images: new Map(),
      trace,
    };
  }

  /** From here on a call may fail for want of a server. */
  noteKill(): void {
    this.#faultsSeen++;
  }

  begin(store: RemoteStore): { readonly life: Life; readonly failure: Promise<never> } {
    let fail: (error: unknown) => void = () => undefined;
    const failure = new Promise<never>((_, reject) => {
      fail = reject;
    });
    failure.catch(() => undefined);
    const lives = this;
    const machine = {
      clock: systemClock,
      get faultsSeen() {
        return lives.#faultsSeen;
      },
    };
    const on = { failure: fail, jobs: () => store.jobs() };
    return { life: new Life(store, machine, this.parts, on), failure };
  }
}

/** @throws {Violation} it takes too long */
export async function inTime<T>(
  work: Promise<T>,
  when: string,
  underWay: () => string[],
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Violation(`${when}, no answer to: ${underWay().join('; ')}`));
    }, ENDS_MS_MAX);
  });
  // Left to run, it would keep the process for as long.
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
