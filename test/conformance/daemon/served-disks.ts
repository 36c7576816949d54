/**
 * A server as a process of its own, with disks of every kind on it, for real clients. A clone in
 * mid-split has a snapshot that the split fills: whatever a client does to the clone itself, there
 * is as much left to fill as the golden disk has.
 */
import assert from 'node:assert/strict';
import { MIB } from '../../../src/base/units.js';
import { DaemonLab } from '../../support/daemon-lab.js';
import { nbdsh } from '../nbd/nbd-clients.js';

export const KINDS = ['vdisk', 'clone', 'clone in mid-split'] as const;
export type Kind = (typeof KINDS)[number];

const GOLDEN_BYTES = 192 * MIB;
const ARGS = ['--size', '4G', '--store-memory', '128M'];

export class ServedDisks {
  readonly lab = new DaemonLab();
  #count = 0;

  static async start(): Promise<ServedDisks> {
    const disks = new ServedDisks();
    await disks.lab.start({ args: ARGS });
    await disks.#makeGolden();
    return disks;
  }

  uri(name: string): string {
    return `nbd+unix:///${name}?socket=${this.lab.path('nbd')}`;
  }

  /** A disk of this size; its name comes back. A split has begun just before. */
  async make(kind: Kind, sizeBytes: number): Promise<string> {
    const name = `disk${++this.#count}`;
    if (kind === 'vdisk') {
      await this.#did('POST', '/v1/vdisks', { name, sizeBytes });
      return name;
    }
    await this.#did('POST', '/v1/clones', { source: 'golden@v1', names: [name] });
    const isSplit = kind === 'clone in mid-split';
    if (isSplit) await this.#snapshot(name, 'base');
    await this.#did('PATCH', `/v1/vdisks/${name}`, { sizeBytes });
    if (isSplit) await this.#did('POST', `/v1/vdisks/${name}/split`, { mode: 'copy' });
    return name;
  }

  /** What the split did beside the client: it is done, or still fills. */
  async expectSplit(kind: Kind, name: string): Promise<void> {
    if (kind !== 'clone in mid-split') return;
    for (;;) {
      const { jobs } = await this.lab.call('GET', '/v1/jobs');
      const states = (jobs as { vdisk: string; state: string }[])
        .filter(({ vdisk }) => vdisk === name || vdisk.startsWith(`${name}@`))
        .map(({ state }) => state);
      assert.ok(states.length > 0 && !states.includes('failed'), `split of ${name}: ${states}`);
      if (states.includes('done')) return;
    }
  }

  close(): Promise<void> {
    return this.lab.close();
  }

  async #makeGolden(): Promise<void> {
    await this.#did('POST', '/v1/vdisks', { name: 'golden', sizeBytes: GOLDEN_BYTES });
    await nbdsh(
      this.uri('golden'),
      `
import random
for i in range(${GOLDEN_BYTES / MIB}): h.pwrite(random.Random(i).randbytes(1 << 20), i << 20)
h.flush()
`,
    );
    await this.#snapshot('golden', 'v1');
  }

  async #snapshot(vdisk: string, snapshot: string): Promise<void> {
    await this.#did('POST', '/v1/snapshots', { items: [{ vdisk, snapshot }] });
  }

  async #did(method: string, path: string, body: object): Promise<void> {
    const answer = await this.lab.call(method, path, body);
    assert.equal(answer.kind === undefined || !('detail' in answer), true, JSON.stringify(answer));
  }
}
