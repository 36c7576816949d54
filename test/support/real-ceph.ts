/**
 * A real Ceph with S3 gateways, from Debian's packages, for as long as a test runs: a monitor, one
 * OSD that keeps its objects in a file, and gateways on ports of loopback.
 *
 * 1. Its daemons run in the foreground of `setpriv`: they end with this process, however it ends.
 * 2. Everything is in a folder of its own, without authentication between the daemons.
 * 3. A program that is not installed is an error that says what to install.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`;
const PACKAGES = 'apt-get install ceph-mon ceph-osd ceph-common radosgw';
const UUID = /[0-9a-f-]{36}/;
/** It takes 12 s; under load ten times that has been seen. */
const START_MS = 240_000;
const PORT_MIN = 15_000;
/** Of all daemons, beside their first. */
const STARTS_MAX = 6;

export const CEPH_KEYS = {
  accessKeyId: 'KEIKITEST',
  secretAccessKey: 'keiki-test-secret',
} as const;

/** A daemon that may be killed, stopped for a while, and started again. */
class Daemon {
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #place: { readonly folder: string; readonly name: string };
  #process: ChildProcess | undefined;

  /** @param name  as Ceph names its log */
  constructor(program: string, args: readonly string[], folder: string, name: string) {
    this.#program = program;
    this.#args = ['-f', ...args, '-c', join(folder, 'ceph.conf')];
    this.#place = { folder, name };
  }

  get isStarted(): boolean {
    return this.#process !== undefined;
  }

  start(): void {
    const { folder, name } = this.#place;
    const output = openSync(join(folder, `${name}.out`), 'a');
    const args = ['--pdeathsig', 'KILL', '--', this.#program, ...this.#args];
    const environment = { ...process.env, PATH };
    this.#process = spawn('setpriv', args, {
      stdio: ['ignore', output, output],
      env: environment,
    });
    closeSync(output);
  }

  get hasEnded(): boolean {
    const { exitCode, signalCode } = this.#process ?? { exitCode: 0, signalCode: null };
    return exitCode !== null || signalCode !== null;
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name);
  }

  /** Ends it at once. */
  async kill(): Promise<void> {
    const running = this.#process;
    if (running === undefined || this.hasEnded) return;
    const ended = once(running, 'close');
    running.kill('SIGKILL');
    await ended;
  }

  /** What it has logged last, under its name. */
  lastWords(): string {
    const { folder, name } = this.#place;
    const texts = [`${name}.out`, `${name}.log`].map((file) => {
      const path = join(folder, file);
      return existsSync(path) ? readFileSync(path, 'utf8').slice(-1500) : '';
    });
    return `--- ${name}${this.hasEnded ? ', which has ended' : ''}:\n${texts.join('\n')}`;
  }
}

export class RealCeph {
  readonly #folder = mkdtempSync(join(tmpdir(), 'keiki-ceph-'));
  readonly #monPort: number;
  readonly #ports: readonly number[];
  readonly #mon: Daemon;
  readonly osd: Daemon;
  readonly gateways: readonly Daemon[];

  /** @throws {Error} one of its daemons does not start: with what it has logged */
  static async start(gatewayCount = 2): Promise<RealCeph> {
    const ports = await freePorts(gatewayCount + 1);
    const ceph = new RealCeph(ports[0] as number, ports.slice(1));
    try {
      await ceph.#start();
      return ceph;
    } catch (error) {
      await ceph.stop();
      const isMissing = /ENOENT|failed to execute|No such file/.test(String(error));
      throw isMissing ? new Error(`Ceph is not installed: ${PACKAGES} (${String(error)})`) : error;
    }
  }

  private constructor(monPort: number, ports: readonly number[]) {
    this.#monPort = monPort;
    this.#ports = ports;
    const folder = this.#folder;
    this.#mon = new Daemon('ceph-mon', ['-i', 'a'], folder, 'mon.a');
    this.osd = new Daemon('ceph-osd', ['-i', '0'], folder, 'osd.0');
    this.gateways = ports.map((_, index) => {
      const name = `client.gateway${index}`;
      return new Daemon('radosgw', ['-n', name], folder, name);
    });
  }

  get endpoints(): readonly string[] {
    return this.#ports.map((port) => `http://127.0.0.1:${port}`);
  }

  /** What clients find their credentials in. */
  get environment(): Readonly<Record<string, string>> {
    return {
      AWS_ACCESS_KEY_ID: CEPH_KEYS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: CEPH_KEYS.secretAccessKey,
    };
  }

  /** For programs that speak to the OSDs themselves. */
  get configurationPath(): string {
    return join(this.#folder, 'ceph.conf');
  }

  /** A pool for images of RBD. */
  async makeRbdPool(): Promise<void> {
    await this.#did('ceph', 'osd', 'pool', 'create', 'rbd', '8');
    await this.#did('ceph', 'osd', 'pool', 'application', 'enable', 'rbd', 'rbd');
  }

  /** Until the gateway listens. */
  async gatewayIsUp(index: number): Promise<void> {
    await this.#listens(`gateway ${index}`, this.#ports[index] as number);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#daemons.map((daemon) => daemon.kill()));
    rmSync(this.#folder, { recursive: true, force: true });
  }

  get #daemons(): readonly Daemon[] {
    return [this.#mon, this.osd, ...this.gateways];
  }

  /**
   * What listens there needs all daemons that were started. One that met its monitor too early, as
   * `#did` says, ends: it is started again.
   */
  async #listens(what: string, port: number): Promise<void> {
    const end = performance.now() + START_MS;
    const daemons = this.#daemons.filter(({ isStarted }) => isStarted);
    for (let startsLeft = STARTS_MAX; !(await isListening(port)); ) {
      const ended = daemons.filter(({ hasEnded }) => hasEnded);
      if (startsLeft < ended.length || performance.now() > end) {
        const words = daemons.map((daemon) => daemon.lastWords()).join('\n');
        throw new Error(`Ceph's ${what} does not start:\n${words}`);
      }
      startsLeft -= ended.length;
      for (const daemon of ended) daemon.start();
      await sleep(50);
    }
  }

  async #start(): Promise<void> {
    const folder = this.#folder;
    const [fsid, osdUuid] = [newUuid(), newUuid()];
    for (const name of ['mon', 'osd', 'run']) mkdirSync(join(folder, name));
    writeFileSync(this.configurationPath, this.#configuration(fsid));
    const map = join(folder, 'monmap');
    const address = `[v1:127.0.0.1:${this.#monPort}]`;
    await this.#did('monmaptool', '--create', '--fsid', fsid, '--addv', 'a', address, map);
    await this.#did('ceph-mon', '--mkfs', '-i', 'a', '--monmap', map);
    this.#mon.start();
    await this.#listens('monitor', this.#monPort);
    await this.#did('ceph', 'osd', 'new', osdUuid);
    await this.#did('ceph', 'osd', 'crush', 'add', 'osd.0', '1', 'root=default', 'host=local');
    await this.#did('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', osdUuid);
    this.osd.start();
    // The first gateway makes its pools, which takes the longest of all.
    const [first, ...others] = this.gateways;
    first?.start();
    await this.gatewayIsUp(0);
    for (const gateway of others) gateway.start();
    const { accessKeyId, secretAccessKey } = CEPH_KEYS;
    const keys = [`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`];
    const user = ['user', 'create', '--uid=keiki', '--display-name=keiki', ...keys];
    await this.#did('radosgw-admin', '-n', 'client.gateway0', ...user);
    for (const index of this.gateways.keys()) await this.gatewayIsUp(index);
  }

  /**
   * Runs one of Ceph's commands. Just after a start about one in ten is refused: without
   * authentication a client may send before it knows which Ceph this is. All may be repeated.
   */
  async #did(program: string, ...args: string[]): Promise<void> {
    const whole = [...args, '-c', this.configurationPath];
    for (let left = 8; ; left--) {
      try {
        await run(program, whole, { env: { ...process.env, PATH }, timeout: 30_000 });
        return;
      } catch (error) {
        if (left === 0 || String(error).includes('ENOENT')) throw error;
        await sleep(200);
      }
    }
  }

  #configuration(fsid: string): string {
    const folder = this.#folder;
    const gateways = this.#ports.map(
      (port, index) => `[client.gateway${index}]
# Without tcp_nodelay a small GET waits 40 ms for a delayed ACK.
rgw frontends = beast endpoint=127.0.0.1:${port} tcp_nodelay=1`,
    );
    return `[global]
fsid = ${fsid}
mon initial members = a
mon host = [v1:127.0.0.1:${this.#monPort}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
auth cluster required = none
auth service required = none
auth client required = none
run dir = ${folder}/run
admin socket = ${folder}/run/$name.$pid.asok
crash dir = ${folder}/run
log file = ${folder}/$name.log
mon data = ${folder}/mon
osd data = ${folder}/osd
# A file: what an OSD has in memory ends with a SIGKILL.
osd objectstore = bluestore
bluestore block create = true
bluestore block size = 6442450944
bluestore fsck on mount = false
osd memory target = 939524096
osd pool default size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
# What the OSD would ask of the monitor at its start may be refused, as any command may: it ends.
osd class update on start = false
osd crush update on start = false
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 2
mon data avail crit = 1
[client]
rgw dns name = localhost
rgw gc obj min wait = 10
rgw lifecycle work time = 00:00-00:01
${gateways.join('\n')}
`;
  }
}

function newUuid(): string {
  return UUID.exec(readFileSync('/proc/sys/kernel/random/uuid', 'utf8'))?.[0] ?? '';
}

/**
 * Below those that the system gives to clients: one of these might take the port of a gateway that
 * was killed before it is started again.
 */
async function freePorts(count: number): Promise<number[]> {
  const [end = 32_768] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')
    .split(/\s+/)
    .map(Number);
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = randomInt(PORT_MIN, end);
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
