/**
 * Proves that every clone is what it should be, from the golden image and the list of writes alone:
 * the store is not asked, but read by clients that know nothing of it.
 */
import { rmSync } from 'node:fs';
import { type DiskImage, fileSystemIn, imagePathIn } from './disk-image.js';
import type { Stage } from './main-job.js';
import { hashExport, runProgram } from './programs.js';
import { formatRate } from './story.js';
import { hashAfter, type PlannedWrite } from './write-plan.js';

export interface Expected {
  /** The clone that a client wrote to, and what of its writes is there. */
  readonly written: string;
  readonly writes: readonly PlannedWrite[];
  /** All of them, those among them that later ones have overwritten. */
  readonly writeCount: number;
  readonly untouched: readonly string[];
}

export class Proof {
  readonly #stage: Stage;
  readonly #image: DiskImage;

  constructor(stage: Stage, image: DiskImage) {
    this.#stage = stage;
    this.#image = image;
  }

  /** The server is stopped at the end, as its store is checked offline. */
  async run({ written, untouched, writes, writeCount }: Expected): Promise<boolean> {
    const { story, folder } = this.#stage;
    story.chapter('Proof');
    const verdicts = [await this.#standAlone([written, ...untouched])];
    for (const name of untouched) {
      const what = 'the golden disk, bit by bit';
      verdicts.push(await this.#hasHash(name, this.#image.sha256, what));
    }
    const sha256 = await hashAfter(imagePathIn(folder), writes);
    const what = `the golden disk with the client's ${writeCount} writes, and nothing else`;
    verdicts.push(await this.#hasHash(written, sha256, what));
    verdicts.push(await this.#isCleanDisk(written));
    verdicts.push(await this.#isSound());
    return verdicts.every((verdict) => verdict);
  }

  async #standAlone(clones: readonly string[]): Promise<boolean> {
    const { story, server, keiki } = this.#stage;
    await keiki.run('list');
    const vdisks = await server.vdisks();
    const names = vdisks.map(({ name }) => name).sort();
    const isAlone =
      names.join() === [...clones].sort().join() &&
      vdisks.every(({ backing, split }) => backing === null && split === null);
    return story.proof(isAlone, 'three disks, none with a backing store; golden is gone');
  }

  async #hasHash(name: string, expected: string, what: string): Promise<boolean> {
    const { story, server } = this.#stage;
    const { sizeBytes } = await server.show(name);
    const hash = await story.task(
      `nbdcopy | sha256: ${name}`,
      () => hashExport(server.uri(name)),
      (sha256, seconds) => `${sha256.slice(0, 16)}…, ${formatRate(sizeBytes, seconds)}`,
    );
    return story.proof(hash === expected, `${name} is ${what}`);
  }

  /** Its partition table, and the file system in its partition. */
  async #isCleanDisk(name: string): Promise<boolean> {
    const { story, folder, keiki } = this.#stage;
    const path = folder.file(`${name}.img`);
    await keiki.run('export', name, path, '--force');
    const table = await story.task(
      'sfdisk --verify',
      () => runProgram('sfdisk', ['--verify', path]),
      ({ output }) => /No errors detected/.exec(output)?.[0] ?? 'errors',
    );
    const check = await story.task(
      'e2fsck -fn',
      () => runProgram('e2fsck', ['-fn', fileSystemIn(path, this.#image.partition)]),
      ({ output }) => output.trim().split('\n').at(-1) ?? '',
    );
    rmSync(path);
    const isTableSound = table.code === 0 && /No errors detected/.test(table.output);
    if (!isTableSound) story.said(table.output);
    if (check.code !== 0) story.said(check.output);
    const isSound = isTableSound && check.code === 0;
    return story.proof(isSound, `the partition table and the file system of ${name} are sound`);
  }

  async #isSound(): Promise<boolean> {
    const { story, server, keiki } = this.#stage;
    const { processId } = server;
    story.command(`kill -TERM ${processId}`);
    const serverCode = await server.stop();
    story.figures(`the server has ended with ${serverCode}: all is durable, the store is closed`);
    const { code } = await keiki.tryToRun('check', ...server.storeArguments);
    const what = 'the store is sound: every pointer, checksum, map bit, count and owner';
    return story.proof(serverCode === 0 && code === 0, what);
  }
}
