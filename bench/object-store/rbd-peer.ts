/**
 * Images of Ceph's RBD on the OSD that the S3 gateway uses, too. Clones are made by librbd itself,
 * in a process that is connected before the time counts; fio's own rbd engine writes. Without
 * librbd's cache a write is durable when it is answered.
 */
import { MIB } from '../../src/base/units.js';
import type { RealCeph } from '../../test/support/real-ceph.js';
import { runCommand } from '../harness/scratch.js';
import { elapsedMs } from '../harness/timing.js';

/** Debian's: what belongs to its packages is not seen by others. */
const PYTHON = '/usr/bin/python3';

/** With the features that `rbd create` gives an image by default. */
const LIBRBD = `
import sys, time, rados, rbd
conf, act, *words = sys.argv[1:]
with rados.Rados(conffile=conf, name='client.admin') as ceph, ceph.open_ioctx('rbd') as pool:
    def timed(work):
        start = time.perf_counter()
        work()
        print((time.perf_counter() - start) * 1000)
    if act == 'create':
        rbd.RBD().create(pool, words[0], int(words[1]), old_format=False, features=61)
    elif act == 'snapshot':
        with rbd.Image(pool, words[0]) as image:
            image.create_snap('v1')
            image.protect_snap('v1')
    elif act == 'clone':
        for name in words[1:]:
            timed(lambda: rbd.RBD().clone(pool, words[0], 'v1', pool, name, features=61))
    elif act == 'remove':
        rbd.RBD().remove(pool, words[0])
`;

interface FioReport {
  readonly jobs: readonly { readonly write: { readonly iops: number } }[];
}

export class RbdPeer {
  readonly #configurationPath: string;
  readonly #imageBytes: number;
  #lastClone = 0;

  private constructor(configurationPath: string, imageBytes: number) {
    this.#configurationPath = configurationPath;
    this.#imageBytes = imageBytes;
  }

  /** An image, full, with a snapshot to clone. */
  static async make(ceph: RealCeph, imageBytes: number): Promise<RbdPeer> {
    await ceph.makeRbdPool();
    const peer = new RbdPeer(ceph.configurationPath, imageBytes);
    peer.#librbd('create', 'golden', String(imageBytes));
    peer.#fio('golden', '--rw=write', '--bs=4M', '--iodepth=4');
    peer.#librbd('snapshot', 'golden');
    return peer;
  }

  /** New clones, and the milliseconds that each took. */
  clone(count: number): { readonly names: readonly string[]; readonly ms: readonly number[] } {
    const names = Array.from({ length: count }, () => `clone${this.#lastClone++}`);
    return { names, ms: this.#librbd('clone', 'golden', ...names) };
  }

  /** 4 KiB writes at random places, a second. */
  writeRate(image: string, depth: number, operations: number): number {
    const shape = ['--rw=randwrite', '--bs=4k', `--iodepth=${depth}`, '--randrepeat=0'];
    return this.#fio(image, ...shape, `--number_ios=${operations}`);
  }

  /** Milliseconds until the clone stands alone; some 30 of them are the start of the command. */
  async split(image: string): Promise<number> {
    const command = `rbd flatten rbd/${image} --no-progress -c ${this.#configurationPath}`;
    return elapsedMs(() => Promise.resolve(runCommand('sh', ['-c', command])));
  }

  remove(image: string): void {
    this.#librbd('remove', image);
  }

  #librbd(...words: readonly string[]): number[] {
    const text = runCommand(PYTHON, ['-c', LIBRBD, this.#configurationPath, ...words]);
    return text.split('\n').filter(Boolean).map(Number);
  }

  #fio(image: string, ...words: readonly string[]): number {
    const place = ['--ioengine=rbd', '--pool=rbd', `--rbdname=${image}`, '--clientname=admin'];
    const size = `--size=${this.#imageBytes / MIB}M`;
    const all = ['--name=rbd', ...place, size, '--output-format=json', ...words];
    process.env.CEPH_CONF = this.#configurationPath;
    process.env.CEPH_ARGS = '--rbd_cache=false';
    const text = runCommand('fio', all);
    const report = JSON.parse(
      text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1),
    ) as FioReport;
    return report.jobs[0]?.write.iops ?? Number.NaN;
  }
}
