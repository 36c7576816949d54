/**
 * The simulator's command.
 *
 *   npm run sim -- --seeds 100 --first 1 --medium in-place
 *   npm run sim -- --every-write --medium object-log      power cut in every call of the scripts
 *   npm run sim -- --every-write --script splits          of one of them: acts, splits
 *   npm run sim -- --every-write --nested 1               and in every call of the recovery, too
 *   npm run sim -- --every-write --seed 2                 the same cuts, other writes survive them
 *   npm run sim -- --bit-rot 20000                        single bits of a populated store
 *   npm run sim -- --medium object-log --durability local   FLUSH is answered by a local log
 *   npm run sim -- --servers 3 --seeds 100                servers that fight for a store
 *   npm run sim -- --week --days 7                        a week of a busy object log
 *   npm run sim -- --week --choice cost-benefit           with another choice of its cleaner
 *
 * --verbose tells every act. A failure prints the one command that replays it, and ends with 1.
 */
import { parseArgs } from 'node:util';
import { PLACES, rotBits } from './bit-rot.js';
import { Coverage } from './coverage.js';
import { MEDIUM_KINDS, type MediumKind } from './machine.js';
import { cutAtEveryWrite, SCRIPT_NAMES, type ScriptName } from './scripted.js';
import { simulateServers } from './servers/servers.js';
import { simulate } from './simulation.js';
import { simulateWeek } from './week.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '10' },
    first: { type: 'string', default: '1' },
    medium: { type: 'string', default: 'in-place' },
    durability: { type: 'string', default: 'remote' },
    'every-write': { type: 'boolean', default: false },
    script: { type: 'string' },
    stride: { type: 'string', default: '1' },
    nested: { type: 'string' },
    seed: { type: 'string', default: '1' },
    'bit-rot': { type: 'string' },
    servers: { type: 'string' },
    week: { type: 'boolean', default: false },
    days: { type: 'string', default: '7' },
    choice: { type: 'string', default: 'greedy' },
    verbose: { type: 'boolean', default: false },
  },
});

/** Of scripts with a local log: some of their FLUSHes wait for the object store. */
const LAG_MS = 20;
/** Lines of progress come at most so often. */
const PROGRESS_MS = 10_000;

const medium = toMedium(values.medium);
const isLocal = toIsLocal(values.durability);
const scripts = toScripts(values.script);
const first = toCount('first', values.first);
const trace = values.verbose ? (line: string): void => console.log(line) : undefined;
const startedMs = performance.now();
let replay = '';
let progressMs = startedMs;

function toMedium(text: string): MediumKind {
  const found = MEDIUM_KINDS.find((kind) => kind === text);
  if (found !== undefined) return found;
  console.error(`--medium is one of ${MEDIUM_KINDS.join(', ')}, not ${text}`);
  process.exit(2);
}

function toIsLocal(text: string): boolean {
  if (text === 'remote' || (text === 'local' && medium === 'object-log')) return text === 'local';
  console.error(`--durability is remote, or local with --medium object-log, not ${text}`);
  process.exit(2);
}

function toScripts(text: string | undefined): readonly ScriptName[] {
  const found = SCRIPT_NAMES.filter((name) => text === undefined || name === text);
  if (found.length > 0) return found;
  console.error(`--script is one of ${SCRIPT_NAMES.join(', ')}, not ${text}`);
  process.exit(2);
}

function toCount(name: string, text: string): number {
  const count = Number(text);
  if (Number.isSafeInteger(count) && count >= 0) return count;
  console.error(`--${name} is a count, not ${text}`);
  process.exit(2);
}

/** Remembers how to come here again, for whatever fails from now on. */
function noteReplay(args: string): void {
  const local = isLocal ? ' --durability local' : '';
  replay = `npm run sim -- --medium ${medium}${local} ${args} --verbose`;
}

function progress(text: string): void {
  const now = performance.now();
  if (now - progressMs < PROGRESS_MS) return;
  progressMs = now;
  console.log(`${((now - startedMs) / 1000).toFixed(0)} s: ${text}`);
}

function fail(error: unknown): never {
  console.error(error instanceof Error ? error.stack : error);
  console.error(`replay: ${replay}`);
  process.exit(1);
}

// An error in a background job of the store reaches nobody else.
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);

function printTotals(coverage: Coverage): void {
  console.log(coverage.matrix());
  for (const [name, count] of Object.entries<number>({ ...coverage.totals })) {
    console.log(`${name.padEnd(20)} ${Math.round(count).toLocaleString('en')}`);
  }
}

async function runSeeds(): Promise<void> {
  const seeds = toCount('seeds', values.seeds);
  const total = new Coverage();
  for (let seed = first; seed < first + seeds; seed++) {
    noteReplay(`--seeds 1 --first ${seed}`);
    const { digest, coverage } = await simulate({ seed, medium, isLocal, trace });
    total.add(coverage);
    if (seeds <= 20) console.log(`seed ${seed}: digest ${digest}, ${coverage.totals.acts} acts`);
    progress(`${seed - first + 1} of ${seeds} seeds, ${total.totals.cuts} cuts, no violation`);
  }
  printTotals(total);
}

async function runEveryWrite(script: ScriptName): Promise<void> {
  const nested = values.nested === undefined ? undefined : toCount('nested', values.nested);
  const stride = toCount('stride', values.stride);
  const seed = toCount('seed', values.seed);
  const cuts = nested === undefined ? '' : ` --nested ${nested}`;
  const more = ` --script ${script}${cuts} --seed ${seed}`;
  const onCut = (call: number): void => {
    noteReplay(`--every-write${more} --stride 1000000 --first ${call}`);
    progress(`${script}: power cut in call ${call}`);
  };
  const options = { medium, script, first, stride, nested, seed, trace, onCut };
  const localLagMs = isLocal ? LAG_MS : undefined;
  const { calls, coverage } = await cutAtEveryWrite({ ...options, localLagMs });
  console.log(`${script}: ${calls} calls; power was cut in each (step ${stride})`);
  printTotals(coverage);
}

async function runBitRot(positions: number): Promise<void> {
  for (const end of ['close', 'cut'] as const) {
    let count = 0;
    noteReplay(`--bit-rot ${positions} --first ${first}`);
    const half = Math.ceil(positions / 2);
    const report = await rotBits(medium, end, half, first, (text) => {
      if (values.verbose) console.log(text);
      progress(`${++count} of ${half} positions after a ${end}`);
    });
    const places = PLACES.map((place) => `${place} ${report.tried[place]}`).join(', ');
    console.log(
      `after a ${end}: ${half} positions (${places}); refused ${report.refused}, ` +
        `healed ${report.healed}, opens refused ${report.closed}; nothing wrong or stale`,
    );
  }
}

async function runServers(servers: number): Promise<void> {
  const seeds = toCount('seeds', values.seeds);
  const totals: Record<string, number> = {};
  for (let seed = first; seed < first + seeds; seed++) {
    noteReplay(`--servers ${servers} --seeds 1 --first ${seed}`);
    const { digest, counts } = await simulateServers({ seed, servers, trace });
    for (const [name, count] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + count;
    if (seeds <= 20) console.log(`seed ${seed}: digest ${digest}`);
    progress(`${seed - first + 1} of ${seeds} seeds, no violation`);
  }
  for (const [name, count] of Object.entries(totals)) {
    console.log(`${name.padEnd(20)} ${count.toLocaleString('en')}`);
  }
}

async function runWeek(): Promise<void> {
  const days = toCount('days', values.days);
  const choice = values.choice === 'cost-benefit' ? values.choice : 'greedy';
  noteReplay(`--week --days ${days} --choice ${choice} --first ${first}`);
  const print = (line: string): void => console.log(line);
  const report = await simulateWeek({ seed: first, days, choice, print });
  for (const [name, count] of Object.entries<number>({ ...report })) {
    const digits = count < 100 ? 2 : 0;
    console.log(`${name.padEnd(20)} ${Number(count.toFixed(digits)).toLocaleString('en')}`);
  }
}

async function main(): Promise<void> {
  if (values.week) await runWeek();
  else if (values.servers !== undefined) await runServers(toCount('servers', values.servers));
  else if (values['bit-rot'] !== undefined) await runBitRot(toCount('bit-rot', values['bit-rot']));
  else if (values['every-write']) for (const script of scripts) await runEveryWrite(script);
  else await runSeeds();
  const seconds = (performance.now() - startedMs) / 1000;
  const cpuSeconds = process.cpuUsage().user / 1e6;
  console.log(`no violation, ${seconds.toFixed(1)} s (${cpuSeconds.toFixed(1)} s of processor)`);
}

main().catch(fail);
