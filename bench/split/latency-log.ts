/**
 * A client over NBD that does 4 KiB reads and writes (70/30) at random places of the whole disk, 4
 * under way, until it is told to end; and when each of them ended, and how long it took. The client
 * is fio: it costs little, and is nobody's own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { percentile } from '../harness/timing.js';

const SECONDS_MAX = 300;

const started = new Set<ChildProcess>();
process.on('exit', () => {
  for (const client of started) client.kill('SIGKILL');
});

/** Of one run, in the order of their ends. */
export interface LatencyLog {
  /** Milliseconds since 1970. */
  readonly endMs: Float64Array;
  readonly latencyMs: Float32Array;
}

export class LatencyClient {
  readonly #process: ChildProcess;
  readonly #prefix: string;
  #errors = '';

  constructor(uri: string, prefix: string, seed: number) {
    this.#prefix = prefix;
    const words = [
      '--name=client',
      '--ioengine=nbd',
      `--uri=${uri}`,
      ...['--rw=randrw', '--rwmixread=70', '--bs=4k', '--iodepth=4'],
      ...['--norandommap', '--randrepeat=0', `--randseed=${seed}`],
      ...['--time_based', `--runtime=${SECONDS_MAX}`, '--eta=never', '--output=/dev/null'],
      ...['--disable_clat=1', '--disable_slat=1', '--log_unix_epoch=1'],
      `--write_lat_log=${prefix}`,
    ];
    this.#process = spawn('fio', words, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process.stderr?.on('data', (chunk: Buffer) => {
      this.#errors += chunk.toString();
    });
    started.add(this.#process);
    this.#process.on('exit', () => started.delete(this.#process));
  }

  /** Ends it. */
  async end(): Promise<LatencyLog> {
    const isRunning = this.#process.exitCode === null;
    this.#process.kill('SIGINT');
    if (isRunning) await once(this.#process, 'exit');
    const path = `${this.#prefix}_lat.1.log`;
    try {
      return parse(readFileSync(path, 'latin1'));
    } catch (error) {
      throw new Error(`fio: ${this.#errors}`, { cause: error });
    } finally {
      rmSync(path, { force: true });
    }
  }
}

/** Lines `milliseconds, nanoseconds, ...`. */
function parse(text: string): LatencyLog {
  const lines = text.trimEnd().split('\n');
  const endMs = new Float64Array(lines.length);
  const latencyMs = new Float32Array(lines.length);
  lines.forEach((line, index) => {
    const comma = line.indexOf(',');
    endMs[index] = Number(line.slice(0, comma));
    latencyMs[index] = Number(line.slice(comma + 1, line.indexOf(',', comma + 1))) / 1e6;
  });
  return { endMs, latencyMs };
}

export interface Latencies {
  readonly operations: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly worstMs: number;
}

/** Of what ended between the two moments. */
export function latenciesOf(log: LatencyLog, fromMs: number, toMs: number): Latencies {
  const all: number[] = [];
  log.endMs.forEach((ms, index) => {
    if (ms >= fromMs && ms < toMs) all.push(log.latencyMs[index] as number);
  });
  return {
    operations: all.length,
    p50Ms: percentile(all, 0.5),
    p99Ms: percentile(all, 0.99),
    worstMs: all.at(-1) ?? Number.NaN,
  };
}
