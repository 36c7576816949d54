/** Snapshots, clones and splits. */
import type { Job, PolicyOptions } from '../../control/schemas.js';
import {
  SNAPSHOT_NAME,
  toAnyName,
  toCloneSource,
  toPace,
  toRateBytes,
  toVdiskName,
  toWindowText,
} from '../arguments.js';
import type { CommandRow, Context } from '../command-table.js';
import { formatSplitPlan } from '../describe-plan.js';
import { CommandError } from '../failure.js';
import { formatElapsed, formatShare } from '../figures.js';
import { VDISK_ROW } from './rows.js';

const snapshot: CommandRow = {
  name: 'snapshot',
  summary: 'Snapshots of one vdisk or of several, as of one moment',
  usage: 'VDISK... SNAP | VDISK@SNAP...',
  details:
    'The last word is the name of the snapshots; or each vdisk comes with the name of its own. ' +
    'All of them are made, or none.',
  arguments: [
    {
      name: 'WORD',
      summary: 'vdisks and the name of their snapshots, or vdisk@snapshot',
      completes: 'vdisk',
      isMany: true,
      parse: toAnyName,
    },
  ],
  flags: [],
  examples: [
    'keiki snapshot golden v1',
    'keiki snapshot db-data db-log before-upgrade',
    'keiki snapshot golden@v1',
  ],
  run: async (context, { arguments: [words] }) => {
    const items = toSnapshots(words as string[]);
    const answer = await context.api.call('createSnapshots', { body: { items } });
    if (context.isJson) await context.output.printJson(answer);
    else await context.say(answer.vdisks.map(({ name }) => name).join('\n'));
    return undefined;
  },
};

/** @throws {CommandError} usage */
export function toSnapshots(words: readonly string[]): { vdisk: string; snapshot: string }[] {
  if (words.every((word) => SNAPSHOT_NAME.test(word))) {
    return words.map((word) => {
      const at = word.indexOf('@');
      return { vdisk: word.slice(0, at), snapshot: word.slice(at + 1) };
    });
  }
  const name = words.at(-1) ?? '';
  const vdisks = words.slice(0, -1);
  const mixed = words.find((word) => word.includes('@'));
  if (mixed !== undefined) {
    const message = `${mixed} names its snapshot, and others do not`;
    throw new CommandError('usage', `${message}: VDISK... SNAP, or VDISK@SNAP...`);
  }
  if (vdisks.length === 0) {
    const message = `the name of the snapshot is missing: keiki snapshot ${name} SNAP`;
    throw new CommandError('usage', message);
  }
  return vdisks.map((vdisk) => ({ vdisk, snapshot: name }));
}

const clone: CommandRow = {
  name: 'clone',
  summary: 'Writable clones of a snapshot, at once',
  usage: 'VDISK@SNAP|STORE#VDISK@SNAP NAME...',
  details:
    'All of them are made, or none. They take space for what is written to them. STORE is a ' +
    'store on an object store, s3://BUCKET/PREFIX or dir:PATH, which has published the snapshot; ' +
    'its server need not run.',
  arguments: [
    {
      name: 'VDISK@SNAP',
      summary: 'snapshot to clone, or an external backing store',
      completes: 'snapshot',
      parse: toCloneSource,
    },
    {
      name: 'NAME',
      summary: 'names of the clones',
      completes: 'nothing',
      isMany: true,
      parse: toVdiskName,
    },
  ],
  flags: [],
  examples: [
    'keiki clone golden@v1 web1 web2 web3',
    'keiki clone s3://disks/library#golden@v1 web1',
  ],
  run: async (context, { arguments: [source, names] }) => {
    const body = { source: source as string, names: names as string[] };
    const answer = await context.api.call('createClones', { body });
    if (context.isJson) await context.output.printJson(answer);
    else
      await context.say(answer.vdisks.map((each) => `${each.name}: of ${body.source}`).join('\n'));
    return undefined;
  },
};

/** How often a job is asked after. */
const POLL_MS = 300;

const split: CommandRow = {
  name: 'split',
  summary: 'Separates a clone from its backing store, online',
  usage: 'NAME [--mode copy|share] [--pace PACE] [--plan] [--wait] [--pause|--resume|--cancel]',
  details:
    'It goes on in the server; its clients notice nothing, and what it read from can be deleted ' +
    'afterwards. Ctrl-C ends the waiting, not the split. A plan changes nothing: it says what a ' +
    'split would read, write and give back, in both modes or in one; of a split that is under ' +
    'way, what is left. What is given for a split that is under way changes it.',
  arguments: [VDISK_ROW],
  flags: [
    {
      name: 'mode',
      takes: 'MODE',
      choices: ['copy', 'share'],
      summary: 'copy (default): blocks of its own; share: the same blocks, by metadata only',
    },
    {
      name: 'pace',
      takes: 'PACE',
      summary:
        'balanced (default): as fast as the latency of clients allows; idle: while they are ' +
        'quiet; now; rate=SIZE: so much a second, at most',
      parse: toPace,
    },
    {
      name: 'floor',
      takes: 'SIZE',
      summary: 'a second, at least, however busy clients are; by itself 1 MiB',
      parse: toRateBytes,
    },
    {
      name: 'window',
      takes: 'HH:MM-HH:MM',
      summary: 'time of day (UTC) in which it works; always takes it away',
      parse: toWindowText,
    },
    { name: 'unreserved', summary: 'begin without space for all of it set aside' },
    { name: 'plan', summary: 'what it would do, exactly, by a walk over metadata' },
    { name: 'estimate', summary: 'with --plan: at once, from counters, and at most' },
    { name: 'wait', summary: 'wait until it is done, with progress' },
    { name: 'pause', summary: 'let it rest until --resume, whatever happens' },
    { name: 'resume', summary: 'let it go on' },
    { name: 'cancel', summary: 'cancel the split that is under way; what it filled stays' },
    { name: 'undo', summary: 'with --cancel: what it filled becomes holes again' },
  ],
  examples: [
    'keiki split web1 --plan',
    'keiki split web1 --wait',
    'keiki split web2 --mode share',
    'keiki split web3 --pace rate=50M --window 22:00-06:00',
  ],
  run: async (context, { arguments: [given], flags }) => {
    const name = given as string;
    const asked = ['cancel', 'pause', 'resume', 'plan'].filter((flag) => flags[flag] === true);
    if (asked.length > 1) {
      throw new CommandError('usage', `--${asked.join(', --')}: one of them at a time`);
    }
    if (flags.undo === true && flags.cancel !== true) {
      throw new CommandError('usage', '--undo goes with --cancel');
    }
    if (flags.cancel === true) return cancelSplit(context, name, flags.undo === true);
    if (flags.pause === true) return restSplit(context, name, true);
    if (flags.resume === true) return restSplit(context, name, false);
    const chosen = flags.mode as 'copy' | 'share' | undefined;
    if (flags.plan === true) return planSplit(context, name, chosen, flags.estimate === true);
    if (flags.estimate === true) {
      throw new CommandError('usage', '--estimate goes with --plan: nothing has been split');
    }
    // One that is under way keeps the mode that it has.
    const { split: known } = await context.api.call('getVdisk', { params: { name } });
    const body = { mode: chosen ?? known?.mode ?? 'copy', ...toPolicyOptions(flags) };
    const started = await context.api.call('splitVdisk', { params: { name }, body });
    const startMs = context.nowMs();
    const job = flags.wait === true ? await waitFor(context, started) : started;
    if (context.isJson) await context.output.printJson(job);
    if (job.error !== null) throw new CommandError(job.error.kind, job.error.detail);
    if (job.state === 'cancelled') {
      throw new CommandError('cancelled', `${name}: its split was cancelled`);
    }
    const seconds = formatElapsed((context.nowMs() - startMs) / 1000);
    const done = `${name}: split, in ${seconds}; it reads through nothing now`;
    const going = `${name}: the split is under way as ${job.id}; see \`keiki show ${name}\``;
    await context.say(job.state === 'done' ? done : going);
    return undefined;
  },
};

async function planSplit(
  context: Context,
  name: string,
  mode: 'copy' | 'share' | undefined,
  isEstimate: boolean,
): Promise<undefined> {
  const query = {
    ...(mode === undefined ? {} : { mode }),
    ...(isEstimate ? ({ estimate: 'true' } as const) : {}),
  };
  const plan = await context.api.call('planSplit', { params: { name }, query });
  const { output } = context;
  if (context.isJson) await output.printJson(plan);
  else await output.print(formatSplitPlan(plan, (text) => output.style('bold', text)));
  return undefined;
}

/** The job as it ended. */
async function waitFor(context: Context, started: Job): Promise<Job> {
  const progress = context.progress(`split ${started.vdisk}`);
  try {
    for (let job = started; ; ) {
      if (job.endedAt !== null) return job;
      progress.update({
        doneBytes: job.doneBytes,
        totalBytes: job.totalBytes ?? undefined,
        rateBytesPerSecond: job.rateBytesPerSecond,
        etaSeconds: job.etaSeconds ?? undefined,
        note: job.reason === null ? undefined : `pauses: ${job.reason}`,
      });
      await delay(POLL_MS, context.signal);
      job = await context.api.call('getJob', { params: { id: job.id } });
    }
  } finally {
    progress.end();
  }
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason)));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}

function toPolicyOptions(flags: Readonly<Record<string, unknown>>): PolicyOptions {
  const { pace, floor, window, unreserved } = flags;
  return {
    ...(pace as PolicyOptions | undefined),
    ...(floor === undefined ? {} : { floorBytesPerSecond: floor as number }),
    ...(window === undefined ? {} : { window: window as string }),
    ...(unreserved === true ? { isReserved: false } : {}),
  };
}

async function restSplit(context: Context, name: string, isPaused: boolean): Promise<undefined> {
  const vdisk = await context.api.call('changeSplit', { params: { name }, body: { isPaused } });
  if (context.isJson) await context.output.printJson(vdisk);
  const at =
    vdisk.split === null
      ? ''
      : ` at ${formatShare(vdisk.split.positionBytes, vdisk.split.endBytes)}`;
  await context.say(`${name}: its split ${isPaused ? 'rests' : 'goes on'}${at}`);
  return undefined;
}

async function cancelSplit(context: Context, name: string, undo: boolean): Promise<undefined> {
  const { split: before } = await context.api.call('getVdisk', { params: { name } });
  if (before === null) throw new CommandError('not-found', `${name} is not being split`);
  const query = undo ? ({ undo: 'true' } as const) : {};
  const vdisk = await context.api.call('cancelSplit', { params: { name }, query });
  if (context.isJson) await context.output.printJson(vdisk);
  const at = formatShare(before.positionBytes, before.endBytes);
  const then = undo ? '; what it filled becomes holes again' : '';
  await context.say(`${name}: its split was cancelled at ${at}${then}`);
  return undefined;
}

export const CLONE_COMMANDS: readonly CommandRow[] = [snapshot, clone, split];
