/**
 * Proves that every clone is what it should be, from the golden image and the list of writes alone:
 * the store is not asked, but read by clients that know nothing of it.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type DiskImage, imagePathIn } from './disk-image.js';
import type { Lab } from './lab.js';
import { hashExport, runProgram, runToSuccess } from './programs.js';
import { formatRate, type Story } from './story.js';
import { hashAfter, type PlannedWrite } from './write-plan.js';

export interface Expected {
  /** The clone that a client wrote to, and what it wrote. */
  readonly written: string;
  readonly writes: readonly PlannedWrite[];
  readonly untouched: readonly string[];
}

export class Proof {
  readonly #story: Story;
  readonly #lab: Lab;
  readonly #folder: string;

  constructor(story: Story, lab: Lab, folder: string) {
    this.#story = story;
    this.#lab = lab;
    this.#folder = folder;
  }

  async run(image: DiskImage, { written, untouched, writes }: Expected): Promise<boolean> {
    this.#story.chapter('Proof');
    const verdicts = [await this.#isSound(), this.#standAlone([written, ...untouched])];
    for (const name of untouched) {
      verdicts.push(await this.#hasHash(name, image.sha256, 'the golden image, bit by bit'));
    }
    const sha256 = await hashAfter(imagePathIn(this.#folder), writes);
    const what = `the golden image with the ${writes.length} writes, and nothing else`;
    verdicts.push(await this.#hasHash(written, sha256, what));
    verdicts.push(await this.#isCleanFileSystem(written));
    return verdicts.every((verdict) => verdict);
  }

  async #isSound(): Promise<boolean> {
    const lab = this.#lab;
    const report = await this.#story.task(
      'close the store, check it, open it again',
      async () => {
        await lab.close();
        const checked = await lab.check();
        await lab.open();
        return checked;
      },
      ({ counts, faultCount }) => `${counts.blocksChecked} blocks checked, ${faultCount} faults`,
    );
    for (const { message } of report.faults.slice(0, 10)) this.#story.say(message);
    const what = 'the store is sound: every pointer, checksum, map bit, count and owner';
    return this.#story.proof(report.ok, what);
  }

  #standAlone(clones: readonly string[]): boolean {
    const infos = this.#lab.store.list();
    const names = infos.map(({ name }) => name).sort();
    const isAlone =
      names.join() === [...clones].sort().join() &&
      infos.every(({ backing, split }) => backing === undefined && split === undefined);
    return this.#story.proof(isAlone, 'three disks, none with a backing store; golden is gone');
  }

  async #hasHash(name: string, expected: string, what: string): Promise<boolean> {
    const { sizeBytes } = this.#lab.store.show(name);
    const hash = await this.#story.task(
      `nbdcopy | sha256: ${name}`,
      () => hashExport(this.#lab.uri(name)),
      (sha256, seconds) => `${sha256.slice(0, 16)}…, ${formatRate(sizeBytes, seconds)}`,
    );
    return this.#story.proof(hash === expected, `${name} is ${what}`);
  }

  async #isCleanFileSystem(name: string): Promise<boolean> {
    const path = join(this.#folder, `${name}.img`);
    const { code, output } = await this.#story.task(
      `nbdcopy ${name} to a file; e2fsck -fn`,
      async () => {
        await runToSuccess('nbdcopy', [this.#lab.uri(name), path]);
        return runProgram('e2fsck', ['-fn', path]);
      },
      (outcome) => outcome.output.trim().split('\n').at(-1) ?? '',
    );
    rmSync(path, { force: true });
    if (code !== 0) this.#story.say(output);
    return this.#story.proof(code === 0, `the file system of ${name} is clean`);
  }
}
