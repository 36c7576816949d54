/**
 * A server as a process of its own, with a vdisk, a clone, and a clone whose split is under way and
 * goes so slowly that it still is when the test ends. All three read the same at first.
 */
import assert from 'node:assert/strict';
import { MIB } from '../../../src/base/units.js';
import type { Vdisk } from '../../../src/control/schemas.js';
import { DaemonLab } from '../../support/daemon-lab.js';
import { nbdsh } from './nbd-clients.js';

export const HELD_KINDS = ['vdisk', 'clone', 'splitting'] as const;

/** A multiple of 512, and not of 4096; more than the longest request. */
export const HELD_BYTES = 36 * MIB + 512;
/** Of the golden disk: from here on a clone has grown. */
export const GOLDEN_BYTES = 33 * MIB + 1536;

/** Data, a hole, zeroes, data, a hole, and a last sector of data. */
const FILL = (uris: readonly string[]): string => `
import random
for uri in '${uris.join(' ')}'.split():
    h = nbd.NBD()
    h.connect_uri(uri)
    for i in [*range(8), *range(12, 16)]: h.pwrite(random.Random(i).randbytes(1 << 20), i << 20)
    h.pwrite(b'odd' * 1000, (20 << 20) + 1)
    h.zero(2 << 20, 10 << 20)
    h.pwrite(b'\\xee' * 512, ${GOLDEN_BYTES} - 512)
    h.flush()
`;

export class HeldDisks {
  readonly lab = new DaemonLab();
  #port = '';

  static async start(...args: readonly string[]): Promise<HeldDisks> {
    const disks = new HeldDisks();
    await disks.lab.start({ args: ['--size', '512M', '--nbd', '127.0.0.1:0', ...args] });
    disks.#port = /nbd:\/\/127\.0\.0\.1:(\d+)/.exec(disks.lab.last.log)?.[1] ?? '';
    assert.notEqual(disks.#port, '', disks.lab.last.log);
    await disks.#make();
    return disks;
  }

  uri(name: string): string {
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${this.lab.path('nbd')}`;
  }

  tcpUri(name: string): string {
    return `nbd://127.0.0.1:${this.#port}/${encodeURIComponent(name)}`;
  }

  async ask(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
    const answer = await this.lab.call(method, path, body);
    assert.ok(!('detail' in answer), JSON.stringify(answer));
    return answer;
  }

  /** Lets the split rest, so that nothing moves but by clients; or go on. */
  async rest(isPaused: boolean): Promise<void> {
    await this.ask('PATCH', '/v1/vdisks/splitting/split', { isPaused });
  }

  async close(): Promise<void> {
    try {
      await this.expectSplitting();
    } finally {
      await this.lab.close();
    }
  }

  /** The clone in mid-split was that, all the time. */
  async expectSplitting(): Promise<void> {
    const { split } = (await this.ask('GET', '/v1/vdisks/splitting')) as unknown as Vdisk;
    assert.ok(split !== null, 'the split has ended too early');
    assert.ok(split.positionBytes > 0 && split.positionBytes < split.endBytes);
  }

  async #make(): Promise<void> {
    await this.ask('POST', '/v1/vdisks', { name: 'golden', sizeBytes: GOLDEN_BYTES });
    await this.ask('POST', '/v1/vdisks', { name: 'vdisk', sizeBytes: HELD_BYTES });
    await nbdsh('', FILL([this.uri('golden'), this.uri('vdisk')]));
    const items = [{ vdisk: 'golden', snapshot: 'v1' }];
    await this.ask('POST', '/v1/snapshots', { items });
    const names = ['clone', 'splitting'];
    await this.ask('POST', '/v1/clones', { source: 'golden@v1', names });
    for (const name of names) {
      await this.ask('PATCH', `/v1/vdisks/${name}`, { sizeBytes: HELD_BYTES });
    }
    const pace = { pace: 'rate', rateBytesPerSecond: 64 * 1024, floorBytesPerSecond: 0 };
    await this.ask('POST', '/v1/vdisks/splitting/split', { mode: 'copy', ...pace });
    for (let position = 0; position === 0; ) {
      const { split } = (await this.ask('GET', '/v1/vdisks/splitting')) as unknown as Vdisk;
      position = split?.positionBytes ?? 0;
    }
  }
}
