/** A clone that fio writes to while it is split: killed with the server, and once more after it. */
import { Violation } from '../../sim/model/violation.js';
import { MIB } from '../../src/base/units.js';
import { FioLoad } from '../crash-loop/fio-load.js';
import { OUTSIDE, type RemoteStore } from '../crash-loop/remote-store.js';
import { runProgram } from '../quickstart/programs.js';
import type { Golden } from './golden.js';
import type { KillTally } from './kill-tally.js';
import type { Range } from './space.js';

const NAME = `${OUTSIDE}-web`;
/** Written until the kill; what the log says was flushed has to be there. */
const KILLED: Range = { offset: MIB, sizeBytes: 8 * MIB };
/** Written and verified by fio itself, in the server's next life. */
const VERIFIED: Range = { offset: 12 * MIB, sizeBytes: 4 * MIB };

export class FioClone {
  readonly name = NAME;
  readonly ranges = [KILLED, VERIFIED];
  readonly #load: FioLoad;

  private constructor(load: FioLoad) {
    this.#load = load;
  }

  static async make(store: RemoteStore, golden: Golden, folder: string): Promise<FioClone> {
    await store.clone(golden.snapshot.name, NAME);
    const before = Buffer.alloc(KILLED.sizeBytes);
    for (let at = 0; at < before.length; at += MIB) {
      const bytes = before.subarray(at, at + MIB);
      await store.vdisk(golden.snapshot.name).read(KILLED.offset + at, bytes);
    }
    // A snapshot that somebody has open cannot be deleted.
    await store.letGo(golden.snapshot.name);
    return new FioClone(new FioLoad(folder, { vdisk: NAME, ...KILLED, before }));
  }

  begin(store: RemoteStore, seed: number): Promise<void> {
    return this.#load.begin(store, seed);
  }

  killed(_killedMs: number): Promise<void> {
    return this.#load.killed();
  }

  async verify(store: RemoteStore, tally: KillTally): Promise<void> {
    tally.fioBlocks += (await this.#load.verify(store)).checked;
  }

  async writeAndVerify(store: RemoteStore): Promise<void> {
    const { offset, sizeBytes } = VERIFIED;
    const args = ['--ioengine=nbd', `--uri=${store.uri(NAME)}`, '--name=again', '--rw=randwrite'];
    args.push('--bs=4k', '--iodepth=4', `--offset=${offset}`, `--size=${sizeBytes}`);
    args.push('--verify=crc32c', '--do_verify=1', '--verify_fatal=1');
    args.push('--verify_state_save=0', '--fsync=32');
    const { code, output } = await runProgram('fio', args);
    if (code !== 0) throw new Violation(`fio --verify: ${output}`);
  }
}
