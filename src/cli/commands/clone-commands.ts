/** Snapshots, clones and splits. */
import { formatBytes } from '../../base/units.js';
import type { Job } from '../../control/schemas.js';
import { SNAPSHOT_NAME, toAnyName, toVdiskName } from '../arguments.js';
import type { CommandRow, Context } from '../command-table.js';
import { formatSplitPlan } from '../describe-plan.js';
import { CommandError } from '../failure.js';
import { formatDuration, formatShare } from '../figures.js';
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
  usage: 'VDISK@SNAP NAME...',
  details: 'All of them are made, or none. They take space for what is written to them.',
  arguments: [
    {
      name: 'VDISK@SNAP',
      summary: 'snapshot to clone, or an external backing store',
      completes: 'snapshot',
      parse: toAnyName,
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
  examples: ['keiki clone golden@v1 web1 web2 web3'],
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
  usage: 'NAME [--mode copy|share] [--plan [--estimate]] [--wait] [--cancel]',
  details:
    'It goes on in the server; its clients notice nothing, and what it read from can be deleted ' +
    'afterwards. Ctrl-C ends the waiting, not the split. A plan changes nothing: it says what a ' +
    'split would read, write and give back, in both modes or in the one given; of a split that is ' +
    'under way, what is left.',
  arguments: [VDISK_ROW],
  flags: [
    {
      name: 'mode',
      takes: 'MODE',
      choices: ['copy', 'share'],
      summary: 'copy (default): blocks of its own; share: the same blocks, by metadata only',
    },
    { name: 'plan', summary: 'what it would do, exactly, by a walk over metadata' },
    { name: 'estimate', summary: 'with --plan: at once, from counters, and at most' },
    { name: 'wait', summary: 'wait until it is done, with progress' },
    { name: 'cancel', summary: 'cancel the split that is under way; what it filled stays' },
  ],
  examples: ['keiki split web1 --plan', 'keiki split web1 --wait', 'keiki split web2 --mode share'],
  run: async (context, { arguments: [given], flags }) => {
    const name = given as string;
    if (flags.cancel === true) return cancelSplit(context, name);
    const chosen = flags.mode as 'copy' | 'share' | undefined;
    if (flags.plan === true) return planSplit(context, name, chosen, flags.estimate === true);
    if (flags.estimate === true) {
      throw new CommandError('usage', '--estimate goes with --plan: nothing has been split');
    }
    const mode = chosen ?? 'copy';
    const started = await context.api.call('splitVdisk', { params: { name }, body: { mode } });
    const startMs = context.nowMs();
    const job = flags.wait === true ? await waitFor(context, started) : started;
    if (context.isJson) await context.output.printJson(job);
    if (job.error !== null) throw new CommandError(job.error.kind, job.error.detail);
    if (job.state === 'cancelled') {
      throw new CommandError('cancelled', `${name}: its split was cancelled`);
    }
    const seconds = formatDuration((context.nowMs() - startMs) / 1000);
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

async function cancelSplit(context: Context, name: string): Promise<undefined> {
  const vdisk = await context.api.call('getVdisk', { params: { name } });
  const id = vdisk.split?.jobId ?? undefined;
  if (id === undefined) throw new CommandError('not-found', `${name} is not being split`);
  const job = await context.api.call('cancelJob', { params: { id } });
  if (context.isJson) await context.output.printJson(job);
  const { doneBytes, totalBytes } = job;
  const at = totalBytes === null ? formatBytes(doneBytes) : formatShare(doneBytes, totalBytes);
  await context.say(`${name}: its split was ${job.state} at ${at}`);
  return undefined;
}

export const CLONE_COMMANDS: readonly CommandRow[] = [snapshot, clone, split];
