/** The server and its store: serve, check, stats, events. */
import { formatBytes } from '../../base/units.js';
import type { Event, Stats } from '../../control/schemas.js';
import type { ConfigSources } from '../../main/config.js';
import { parseServeArguments, SERVE_FLAGS } from '../../main/serve-arguments.js';
import type { CheckReport } from '../../store/check/check-report.js';
import type { CommandRow, FlagRow } from '../command-table.js';
import { CommandError, EXIT_CODES } from '../failure.js';
import { formatCount } from '../figures.js';
import { objectFacts } from '../object-stats.js';
import { EVENT_MEDIA } from '../routes.js';
import { sseData } from '../sse.js';
import { formatFacts, formatTable } from '../table.js';

/** The flags of the server; `--api` is one of all commands. */
const SERVE_ROWS: readonly FlagRow[] = SERVE_FLAGS.filter(({ name }) => name !== 'api').map(
  ({ name, takes, summary }) => {
    const isFile = takes === 'FILE' || takes === 'PATH';
    return { name, takes, summary, isList: true, completes: isFile ? 'file' : 'nothing' };
  },
);

const serve: CommandRow = {
  name: 'serve',
  summary: 'Runs the server of a store, until a signal ends it',
  usage:
    '--store FILE|s3://BUCKET/PREFIX [--size 64G] [--nbd-socket PATH] [--nbd HOST:PORT] ' +
    '[--api PATH|HOST:PORT]',
  details:
    'Logs to the standard error. Ctrl-C or SIGTERM ends it, with everything durable; after a ' +
    'crash the next start recovers by itself. Each setting is also a key of the config file and ' +
    'an environment variable.',
  arguments: [],
  flags: SERVE_ROWS,
  examples: [
    'keiki serve --store disks.keiki --size 64G',
    'keiki serve --store s3://disks/one --s3-endpoint http://10.0.0.5:7480 --size 1T',
    'keiki serve --config /etc/keiki.toml',
  ],
  run: async ({ environment }, { raw }) => {
    const options = parseServeArguments(raw);
    // Only here: the engine takes longer to load than other commands to run.
    const main = await import('../../main/serve.js');
    return main.serve({ ...options, environment });
  },
};

const check: CommandRow = {
  name: 'check',
  summary: 'Checks a store while no server has it open',
  usage: 'STORE [--repair] [--skip-data]',
  details:
    'Needs no server. It reads everything that is named, compares checksums, maps, counts and ' +
    'owners, and changes nothing without --repair. Exit code 9 if there is a fault. How to reach ' +
    'S3 it takes from the environment, as the server does, or from flags.',
  arguments: [
    {
      name: 'STORE',
      summary: 'file, block device, s3://BUCKET/PREFIX or dir:DIRECTORY',
      completes: 'file',
    },
  ],
  flags: [
    { name: 'repair', summary: 'write damaged copies of metadata again from their sound twins' },
    { name: 'skip-data', summary: 'metadata only: much quicker' },
    ...SERVE_ROWS.filter(({ name }) => name.startsWith('s3-')),
  ],
  examples: ['keiki check disks.keiki', 'keiki check s3://disks/one --skip-data'],
  run: async (context, { arguments: [file], flags }) => {
    const { output, environment } = context;
    const { checkStoreAt } = await import('../../main/check-place.js');
    const report = await checkStoreAt(file as string, {
      repair: flags.repair === true,
      skipData: flags.skipData === true,
      flags: settingsIn(flags),
      environment,
    });
    if (context.isJson) await output.printJson(report);
    else await output.print(formatReport(file as string, report));
    const isSound = report.isComplete && report.faults.every(({ repaired }) => repaired);
    return isSound && report.faults.length === report.faultCount ? 0 : EXIT_CODES.faults;
  },
};

/** The flags that are settings of the server. */
function settingsIn(flags: Readonly<Record<string, unknown>>): ConfigSources['flags'] {
  return Object.fromEntries(
    SERVE_FLAGS.flatMap(({ name, key }) => {
      const value = flags[name.replaceAll(/-([a-z0-9])/g, (_, mark: string) => mark.toUpperCase())];
      if (!name.startsWith('s3-') || value === undefined) return [];
      return [[key, key === 's3.endpoint' || !Array.isArray(value) ? value : value.at(-1)]];
    }),
  );
}

/** Keys that are printed; --json has more. */
const ORPHANS_SHOWN = 20;

function formatReport(file: string, report: CheckReport): string {
  const { counts, faults, faultCount, isComplete, orphans } = report;
  const lines = faults.map(({ kind, message, repaired }) => {
    return `${repaired ? 'repaired' : 'fault'} ${kind}: ${message}`;
  });
  if (faultCount > faults.length) lines.push(`and ${faultCount - faults.length} more faults`);
  if (!isComplete) lines.push('What hangs on the lost metadata was not seen.');
  if (orphans.objects > 0) {
    lines.push(...orphans.keys.slice(0, ORPHANS_SHOWN).map((key) => `orphan ${key}`));
    const count = formatCount(orphans.objects, 'object');
    const size = formatBytes(orphans.bytes);
    lines.push(`${count} (${size}) that nothing names; the server deletes them in time`);
  }
  const seen = `${formatCount(counts.blocksChecked, 'block')} of 4 KiB checked`;
  const vdisks = formatCount(counts.vdisks, 'vdisk');
  const named = `${vdisks}, ${formatCount(counts.snapshots, 'snapshot')}`;
  const result = faultCount === 0 ? 'no fault' : formatCount(faultCount, 'fault');
  return [...lines, `${file}: ${result}; ${named}, ${seen}`].join('\n');
}

const stats: CommandRow = {
  name: 'stats',
  summary: 'Space, memory, consistency points, and what clients do, since the server started',
  usage: '',
  arguments: [],
  flags: [],
  examples: ['keiki stats', 'keiki stats --json | jq .store.freeBytes'],
  run: async (context) => {
    const { api, output } = context;
    const answer = await api.call('getStats', {});
    if (context.isJson) {
      await output.printJson(answer);
      return undefined;
    }
    const server = await api.call('getServer', {});
    const heading = `keiki ${server.version}, ${server.store.path}`;
    const body = formatStats(answer, (title) => output.style('bold', title));
    await output.print(`${output.style('bold', heading)}\n${body}`);
    return undefined;
  },
};

function formatStats(stats: Stats, styleTitle: (title: string) => string): string {
  const { store, objects, nbd, vdisks } = stats;
  const { totalBytes, usedBytes, freeBytes, memoryBytes, dirtyBuffers, splitsActive } = store;
  const cpMs = store.cpCount === 0 ? 0 : store.cpMs / store.cpCount;
  const { localLog } = store;
  const facts = formatFacts([
    ['space', `${formatBytes(usedBytes)} of ${formatBytes(totalBytes)}`],
    ['free', formatBytes(freeBytes)],
    ['memory', `${formatBytes(memoryBytes)} of buffers, ${dirtyBuffers} of 4 KiB dirty`],
    ['CPs', `${store.cpCount}, ${cpMs.toFixed(1)} ms on average; the last is ${store.cpNumber}`],
    ['healed', store.blocksHealed === 0 ? 'nothing' : `${store.blocksHealed} blocks of metadata`],
    ...(localLog === null ? [] : [['local log', formatLag(localLog)] as [string, string]]),
    ['splits', `${splitsActive} under way, ${store.splitsCompleted} completed`],
    ['NBD', `${formatCount(nbd.connections, 'client')}, ${formatBytes(nbd.heldBytes)} held`],
    ...(objects === null ? [] : objectFacts(objects)),
  ]);
  const rows = vdisks.flatMap(({ name, operations }) =>
    operations.map(({ operation, count, errors, bytes, p50Ms, p99Ms }) => {
      const times = [p50Ms, p99Ms].map((ms) => (ms === null ? '' : ms.toFixed(2)));
      return [name, operation, String(count), String(errors), formatBytes(bytes), ...times];
    }),
  );
  if (rows.length === 0) return facts;
  const [left, right] = ['left', 'right'] as const;
  const columns = [
    { title: 'VDISK', align: left },
    { title: 'OPERATION', align: left },
    ...['COUNT', 'ERRORS', 'BYTES', 'P50 MS', 'P99 MS'].map((title) => ({ title, align: right })),
  ];
  return `${facts}\n\n${formatTable(columns, rows, styleTitle)}`;
}

function formatLag(log: NonNullable<Stats['store']['localLog']>): string {
  const { lagBytes, lagMs, lagMsMax, sizeBytes, waits } = log;
  const lag = `${formatBytes(lagBytes)} of ${formatBytes(sizeBytes)}`;
  const age = `${(lagMs / 1000).toFixed(1)} of ${(lagMsMax / 1000).toFixed(1)} s`;
  const waited = `a flush waited ${formatCount(waits, 'time')}`;
  return `the object store lags ${lag} and ${age} behind; ${waited}`;
}

const events: CommandRow = {
  name: 'events',
  summary: 'What happens, as it happens, until Ctrl-C',
  usage: '[--recent] [--stats]',
  details: 'With --json one JSON object a line; with --json --recent one document.',
  arguments: [],
  flags: [
    { name: 'recent', summary: 'the last events instead, and end' },
    { name: 'stats', summary: 'also the statistics, every five seconds' },
  ],
  examples: ['keiki events', 'keiki events --recent'],
  run: async (context, { flags }) => {
    const { api, output } = context;
    if (flags.recent === true) {
      const answer = await api.call('getEvents', {});
      if (context.isJson) await output.printJson(answer);
      else for (const event of answer.events) await output.print(formatEvent(event));
      return undefined;
    }
    const stream = await api.stream('getEvents', {}, EVENT_MEDIA);
    for await (const data of sseData(stream.chunks)) {
      const event = JSON.parse(data) as Event;
      if (event.type === 'stats' && flags.stats !== true) continue;
      await output.print(context.isJson ? JSON.stringify(event) : formatEvent(event));
    }
    throw new CommandError('closed', 'the server has ended');
  },
};

/** `<time> <type> <what it is about>`. */
export function formatEvent({ at, type, data }: Event): string {
  const head = `${at}  ${type.padEnd(19)}`;
  const word = (key: string): string => {
    const value = data[key];
    return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  };
  if (type === 'job') {
    const progress = typeof data.progress === 'number' ? data.progress : undefined;
    const share = progress === undefined ? '' : ` ${Math.floor(progress * 100)} %`;
    return `${head}  ${word('id')} ${word('vdisk')} ${word('state')}${share}`;
  }
  if (type === 'vdisk-changed' && word('formerName') !== word('name')) {
    return `${head}  ${word('formerName')} -> ${word('name')}`;
  }
  const keys = ['name', 'vdisk', 'uri', 'peer', 'count'];
  const words = keys.map(word).filter((each) => each !== '');
  return `${head}  ${words.join(' ')}`.trimEnd();
}

export const SERVER_COMMANDS: readonly CommandRow[] = [serve, check, stats, events];
