/**
 * `keiki serve` on a real Ceph, with disks that fio writes to while servers, gateways and the OSD
 * die.
 *
 * 1. fio writes through nbdkit, which makes each write durable before it is answered (FUA), and
 *    connects again when the server has gone: fio compares every byte that it was ever answered.
 * 2. Nothing waits for a time: what is done in the middle is done when a quarter is written.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, symlinkSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { MIB } from '../../../src/base/units.js';
import { checkStoreAt } from '../../../src/main/check-place.js';
import { type Daemon, DaemonLab } from '../../support/daemon-lab.js';
import type { RealCeph } from '../../support/real-ceph.js';
import { newBucket } from '../../support/s3-client.js';
import { type Outcome, PATH } from '../nbd/nbd-clients.js';

const DISK_BYTES = 64 * MIB;
/** Slow enough that there is a middle: two seconds for 16 MiB. */
const WRITE_RATE = '8m';
const POLL_MS = 20;

export interface Writing {
  readonly disk: string;
  readonly ended: Promise<Outcome>;
}

export class ServerScene {
  readonly lab = new DaemonLab();
  readonly ceph: RealCeph;
  readonly #bucket: string;
  readonly #proxies: ChildProcess[] = [];
  #disks = 0;

  static async make(ceph: RealCeph, bucket: string): Promise<ServerScene> {
    const objects = await newBucket({ endpoints: ceph.endpoints, bucket });
    objects.close();
    return new ServerScene(ceph, bucket);
  }

  private constructor(ceph: RealCeph, bucket: string) {
    this.ceph = ceph;
    this.#bucket = bucket;
  }

  get address(): string {
    return `s3://${this.#bucket}/a/store`;
  }

  /** At the server that was made current last. */
  uri(disk: string): string {
    return `nbd+unix:///${disk}?socket=${this.lab.path('current')}`;
  }

  /** A server that is ready, and current. */
  async start(...more: string[]): Promise<void> {
    await this.spawn('nbd', ...more).logged(/ready: /);
    this.makeCurrent('nbd');
  }

  /** @param socket  a name in the lab's folder */
  spawn(socket: string, ...more: string[]): Daemon {
    const sockets = [
      '--api',
      this.lab.path(`${socket}.api`),
      '--nbd-socket',
      this.lab.path(socket),
    ];
    const endpoints = this.ceph.endpoints.flatMap((url) => ['--s3-endpoint', url]);
    // Patience for as long as a loaded machine takes to start an OSD.
    const bounds = ['--s3-timeout-ms', '5000', '--s3-patience-ms', '600000'];
    const store = ['--store', this.address, '--size', '1G', '--store-stale-reads-ms', '1000'];
    const args = [...sockets, ...store, ...bounds, ...endpoints, ...more];
    return this.lab.spawn({ args, environment: this.ceph.environment });
  }

  /** Clients that connect from now on come to this server. */
  makeCurrent(socket: string): void {
    for (const [link, target] of [
      ['current', socket],
      ['api', `${socket}.api`],
    ] as const) {
      rmSync(this.lab.path(link), { force: true });
      symlinkSync(this.lab.path(target), this.lab.path(link));
    }
  }

  async newDisk(): Promise<string> {
    const name = `d${++this.#disks}`;
    await this.call('POST', '/v1/vdisks', { name, sizeBytes: DISK_BYTES });
    return name;
  }

  /** @throws {AssertionError} it is refused */
  async call(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
    const answer = await this.lab.call(method, path, body);
    assert.ok(!('detail' in answer), `${method} ${path}: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** fio writes each block of the first 16 MiB once, in any order; then every byte is compared. */
  write(disk: string, seed: number): Writing {
    const job = ['--name=verify', '--ioengine=nbd', '--uri=$uri', '--rw=randwrite', '--bs=64k'];
    const shape = ['--size=16m', '--iodepth=8', `--rate=${WRITE_RATE}`, `--randseed=${seed}`];
    const verify = ['--verify=crc32c', '--do_verify=1', '--verify_fatal=1'];
    const fio = `exec fio ${[...job, ...shape, ...verify].join(' ')}`.replace('$uri', '"$uri"');
    const again = ['retries=1000', 'retry-delay=1', 'retry-exponential=no'];
    const server = [`socket=${this.lab.path('current')}`, `export=${disk}`, 'retry=1000'];
    const filters = ['--filter=fua', '--filter=retry'];
    const args = ['-U', '-', ...filters, 'nbd', ...server, 'fuamode=force', ...again];
    return { disk, ended: this.#run([...args, '--run', fio]) };
  }

  #run(args: readonly string[]): Promise<Outcome> {
    // fio leaves a file of its state where it is ended.
    const cwd = this.lab.folder;
    const proxy = spawn('nbdkit', args, { cwd, env: { PATH, LC_ALL: 'C' } });
    this.#proxies.push(proxy);
    const ended = once(proxy, 'close');
    return Promise.all([ended, text(proxy.stdout), text(proxy.stderr)]).then(
      ([[code], stdout, stderr]) => ({ code: Number(code ?? 128), stdout, stderr }),
    );
  }

  /** Until so much is written: a quarter of what `write` does. */
  async isInTheMiddle({ disk, ended }: Writing): Promise<void> {
    let outcome: Outcome | undefined;
    void ended.then((each) => {
      outcome = each;
    });
    for (;;) {
      const { mappedBytes } = await this.call('GET', `/v1/vdisks/${disk}`);
      assert.equal(outcome, undefined, `fio ended early: ${outcome?.stdout}${outcome?.stderr}`);
      if (Number(mappedBytes) >= 4 * MIB) break;
      await sleep(POLL_MS);
    }
  }

  /** Until a request to the object store has had no answer in time, and is made again. */
  async waitsForStore(): Promise<void> {
    const before = await this.#retries();
    while ((await this.#retries()) === before) await sleep(POLL_MS);
  }

  async #retries(): Promise<number> {
    const text = await this.lab.text('/metrics');
    return Number(/^keiki_objects_retries_total (\d+)$/m.exec(text)?.[1] ?? assert.fail(text));
  }

  /** Every byte that fio was answered is there. */
  async expectVerified({ ended }: Writing): Promise<void> {
    const { code, stdout, stderr } = await ended;
    assert.equal(code, 0, `${stdout}${stderr}\n${this.lab.last.log}`);
    assert.match(stdout, /verify: .*err= 0/);
  }

  /** The offline check, once no server has it. */
  async check(): Promise<void> {
    Object.assign(process.env, this.ceph.environment);
    const flags = { 's3.endpoint': this.ceph.endpoints };
    const options = { repair: false, skipData: false, flags, environment: process.env };
    const report = await checkStoreAt(this.address, options);
    assert.deepEqual(report.faults, []);
    assert.ok(report.isComplete);
  }

  close(): Promise<void> {
    for (const proxy of this.#proxies) proxy.kill('SIGKILL');
    return this.lab.close();
  }
}
