/**
 * SQLite as a load: transactions on ext4 on a loop device over nbdfuse. What was committed before
 * the server was killed has to be there after it. Mounting needs root.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Violation } from '../../sim/model/violation.js';
import { MIB } from '../../src/base/units.js';
import { MountedVdisk } from '../../test/support/mounted-vdisk.js';
import { runProgram } from '../quickstart/programs.js';
import type { OutsideLoad } from './outside-load.js';
import { OUTSIDE, type RemoteStore } from './remote-store.js';
import type { LoadFacts } from './tally.js';

const NAME = `${OUTSIDE}-sqlite`;
const SIZE_BYTES = 96 * MIB;
const PROGRAM = join(import.meta.dirname, 'sqlite-load.py');

export class SqliteLoad implements OutsideLoad {
  readonly name = 'SQLite';
  readonly #folder: string;
  #mounted: MountedVdisk | undefined;
  #said = '';
  #ended: Promise<number> = Promise.resolve(0);

  constructor(folder: string) {
    this.#folder = folder;
    writeFileSync(this.#donePath, '');
  }

  async begin(store: RemoteStore, seed: number): Promise<void> {
    const isNew = !(await store.has(NAME));
    if (isNew) await store.createVdisk(NAME, SIZE_BYTES);
    const mounted = await this.#mount(store);
    if (isNew) await mounted.makeFileSystem('ext4');
    await mounted.mount();
    const args = [PROGRAM, 'write', this.#databasePath(mounted), this.#donePath, String(seed)];
    const writer = spawn('/usr/bin/python3', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#said = '';
    writer.stderr.on('data', (chunk: Buffer) => {
      this.#said += chunk.toString();
    });
    this.#ended = once(writer, 'close').then(() => performance.now());
    const before = this.#committed();
    while (this.#committed() === before && writer.exitCode === null) await sleep(5);
  }

  async killed(killedMs: number): Promise<void> {
    const endedMs = await this.#ended;
    await this.#release();
    // Over a disk that fails it gets what the file system makes of that: what counts is `verify`.
    const isOfFailure = endedMs >= killedMs && /malformed/.test(this.#said);
    if (!isOfFailure && !/disk I\/O error|readonly database|unable to open/.test(this.#said)) {
      throw new Error(`SQLite ended, and not by its disk: ${this.#said}`);
    }
  }

  async verify(store: RemoteStore): Promise<LoadFacts> {
    const mounted = await this.#mount(store);
    await mounted.mount();
    const args = [PROGRAM, 'verify', this.#databasePath(mounted), this.#donePath];
    const { code, output } = await runProgram('/usr/bin/python3', args);
    if (code !== 0) throw new Violation(`SQLite: ${output}`);
    await this.#release();
    return { unit: 'transactions', checked: Number(output) };
  }

  /** Lets go of the disk, in whatever state that is. */
  async #release(): Promise<void> {
    await this.#mounted?.release();
    this.#mounted = undefined;
  }

  async #mount(store: RemoteStore): Promise<MountedVdisk> {
    this.#mounted = await MountedVdisk.attach(store.uri(NAME), join(this.#folder, 'sqlite'));
    return this.#mounted;
  }

  #databasePath(mounted: MountedVdisk): string {
    return join(mounted.path, 'items.db');
  }

  /** What the writer says that it has committed. */
  #committed(): number {
    return readFileSync(this.#donePath, 'utf8').split('done').length;
  }

  get #donePath(): string {
    return join(this.#folder, 'sqlite-done');
  }
}
