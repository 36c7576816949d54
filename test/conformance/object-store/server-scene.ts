/** `keiki serve` on a real Ceph, with a vdisk that fio and nbdsh write to. */
import assert from 'node:assert/strict';
import { MIB } from '../../../src/base/units.js';
import { checkStoreAt } from '../../../src/main/check-place.js';
import { DaemonLab } from '../../support/daemon-lab.js';
import type { RealCeph } from '../../support/real-ceph.js';
import { newBucket } from '../../support/s3-client.js';
import { type Outcome, run } from '../nbd/nbd-clients.js';

const DISK_BYTES = 64 * MIB;

export class ServerScene {
  readonly lab = new DaemonLab();
  readonly #ceph: RealCeph;
  readonly #bucket: string;

  static async make(ceph: RealCeph, bucket: string): Promise<ServerScene> {
    const objects = await newBucket({ endpoints: ceph.endpoints, bucket });
    objects.close();
    const scene = new ServerScene(ceph, bucket);
    await scene.start();
    const disk = await scene.lab.call('POST', '/v1/vdisks', { name: 'd', sizeBytes: DISK_BYTES });
    assert.equal(disk.name, 'd', JSON.stringify(disk));
    return scene;
  }

  private constructor(ceph: RealCeph, bucket: string) {
    this.#ceph = ceph;
    this.#bucket = bucket;
  }

  get address(): string {
    return `s3://${this.#bucket}/a/store`;
  }

  get uri(): string {
    return `nbd+unix:///d?socket=${this.lab.path('nbd')}`;
  }

  async start(): Promise<void> {
    const endpoint = this.#ceph.endpoints.flatMap((url) => ['--s3-endpoint', url]);
    const args = ['--store', this.address, '--size', '1G', '--s3-timeout-ms', '5000', ...endpoint];
    await this.lab.start({ args, environment: this.#ceph.environment });
  }

  /** Random writes with a FLUSH behind each 16, then every byte compared. */
  fio(seed: number, writeMib: number): Promise<Outcome> {
    const job = ['--name=verify', '--ioengine=nbd', `--uri=${this.uri}`, '--rw=randwrite'];
    const shape = ['--bsrange=4k-128k', `--size=${writeMib}M`, '--iodepth=8', '--fsync=16'];
    const verify = ['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', `--randseed=${seed}`];
    return run('fio', [...job, ...shape, ...verify]);
  }

  /** The offline check, once no server has it. */
  async check(): Promise<void> {
    Object.assign(process.env, this.#ceph.environment);
    const flags = { 's3.endpoint': this.#ceph.endpoints };
    const options = { repair: false, skipData: false, flags, environment: process.env };
    const report = await checkStoreAt(this.address, options);
    assert.deepEqual(report.faults, []);
    assert.ok(report.isComplete);
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}
