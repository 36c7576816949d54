/** A crash loop from an empty store in a folder of its own to its end, or to what it keeps. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mayMount } from '../../test/support/mounted-vdisk.js';
import { runProgram, runToSuccess } from '../quickstart/programs.js';
import { CrashLoop } from './crash-loop.js';
import { FioLoad } from './fio-load.js';
import type { OutsideLoad } from './outside-load.js';
import { Server } from './server.js';
import { SqliteLoad } from './sqlite-load.js';
import type { Tally } from './tally.js';

export const STORE_KINDS = ['file', 'device'] as const;
export type StoreKind = (typeof STORE_KINDS)[number];

export interface OnStore {
  readonly store: StoreKind;
  readonly rounds: number;
  readonly seed: number;
  readonly say: (line: string) => void;
}

/** Little memory: blocks leave it, and come back from the store. */
export const FLAGS = ['--store-memory', '24M'];
/** Consistency points come often, seldom, or hardly ever. */
const INTERVALS_MS = [40, 400, 5000];

const SIZE = '768M';

/** @throws what was violated; the folder is kept then, and the message says where */
export async function crashLoopOn(
  options: OnStore,
): Promise<{ readonly lines: string[]; readonly tally: Tally }> {
  const { store, rounds, seed, say } = options;
  const interval = INTERVALS_MS[seed % INTERVALS_MS.length] ?? 400;
  const flags = [...FLAGS, '--store-cp-interval-ms', String(interval)];
  return onNewStore({ ...options, command: 'crash-loop', size: SIZE, flags }, async (place) => {
    const { server, folder } = place;
    const loads: OutsideLoad[] = [new FioLoad(folder)];
    if (mayMount()) loads.push(new SqliteLoad(folder));
    const loop = new CrashLoop({ seed, server, folder, loads, keepsStore: store === 'file' });
    try {
      await loop.run(rounds, (round, said) => say(`round ${round}: ${said}; all there`));
    } catch (error) {
      if (server.isRunning) await server.kill();
      for (const load of loads) await load.killed(performance.now()).catch(() => undefined);
      throw error;
    }
    return { lines: loop.lines(), tally: loop.tally };
  });
}

/** What a run is given. */
export interface NewStore {
  readonly server: Server;
  readonly folder: string;
}

interface StoreOptions extends OnStore {
  /** That makes the same run again. */
  readonly command: string;
  readonly size: string;
  readonly flags: readonly string[];
}

/** Starts a server on an empty store, and takes all away when `run` is done. */
export async function onNewStore<T>(
  { store, rounds, seed, command, size, flags }: StoreOptions,
  run: (place: NewStore) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), `keiki-${command}-`));
  const file = join(folder, 'store');
  let server = new Server(folder, file, [...flags, '--size', size]);
  await server.start();
  let device: string | undefined;
  if (store === 'device') {
    await server.stop();
    device = (await runToSuccess('losetup', ['--find', '--show', file])).trim();
    server = new Server(folder, device, flags);
    await server.start();
  }
  let result: T;
  try {
    result = await run({ server, folder });
  } catch (error) {
    if (server.isRunning) await server.kill();
    writeFileSync(join(folder, 'server.log'), server.log);
    const again = `npm run ${command} -- --store ${store} --rounds ${rounds} --seed ${seed}`;
    const left = `kept: ${folder} (acts.log, server.log, store, store-as-killed)`;
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    throw new Error(`${what}\n${left}\nmuch the same once more: ${again}`, { cause: error });
  } finally {
    if (device !== undefined) await runProgram('losetup', ['--detach', device]);
  }
  rmSync(folder, { recursive: true });
  return result;
}
