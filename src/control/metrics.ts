/**
 * The counters as Prometheus reads them (text format 0.0.4).
 *
 * Names are keiki_<what>_<unit>, units are bytes and seconds, counters end in _total. Histograms
 * have few bounds: one for each operation of each vdisk that had clients.
 */
import type { ControlPlane } from './control-plane.js';
import { BUCKET_MS, type Histogram } from './histogram.js';
import { objectStatsOf } from './object-stats.js';
import { OPERATION_NAMES } from './schemas.js';

/** Every second bound: 32 µs, 128 µs, ... 8.4 s. */
const BOUND_STEP = 2;

type Labels = Readonly<Record<string, string>>;

export function metricsText(plane: ControlPlane): string {
  const text = new MetricsText();
  addStore(text, plane);
  addDevice(text, plane);
  addObjects(text, plane);
  addObjectLog(text, plane);

  addLocalLog(text, plane);
  addVdisks(text, plane);
  return text.toString();
}

function addStore(text: MetricsText, plane: ControlPlane): void {
  const stats = plane.store.stats();
  text.one('gauge', 'keiki_up', 'The store is open, and takes writes', plane.hasEnded ? 0 : 1);
  text.metric('gauge', 'keiki_info', 'Version of the server');
  text.sample('keiki_info', { version: plane.options.version }, 1);
  text.one('gauge', 'keiki_uptime_seconds', 'Since the start', plane.uptimeSeconds);
  text.one('gauge', 'keiki_store_size_bytes', 'Size of the store', stats.totalBytes);
  text.one('gauge', 'keiki_store_used_bytes', 'Taken, metadata included', stats.usedBytes);
  text.one('gauge', 'keiki_store_free_bytes', 'Free for data', stats.freeBytes);
  text.one('gauge', 'keiki_cache_bytes', 'Buffers in memory', stats.memoryBytes);
  text.one('gauge', 'keiki_cache_dirty_blocks', 'Waiting for a CP', stats.dirtyBuffers);
  text.one('counter', 'keiki_cache_misses_total', 'Blocks read from the medium', stats.blocksRead);
  text.one('counter', 'keiki_blocks_healed_total', 'Mended from a copy', stats.blocksHealed);
  text.metric('summary', 'keiki_cp_seconds', 'Consistency points');
  text.sample('keiki_cp_seconds_sum', {}, stats.cpMs / 1000);
  text.sample('keiki_cp_seconds_count', {}, stats.cpCount);
  text.one('counter', 'keiki_cp_blocks_total', 'Blocks they wrote', stats.cpBlocksWritten);
  text.one('gauge', 'keiki_cp_in_progress', 'One is written now', stats.cpInProgress ? 1 : 0);
  text.one('counter', 'keiki_log_groups_total', 'Groups written to the log', stats.logGroups);
  text.one('gauge', 'keiki_splits_active', 'Splits at work', stats.splitsActive);
  text.one('counter', 'keiki_splits_completed_total', 'Splits', stats.splitsCompleted);
  text.one('counter', 'keiki_split_blocks_total', 'Blocks filled', stats.splitBlocksFilled);
  const { splitBackingBlocksRead } = stats;
  text.one('counter', 'keiki_split_reads_total', 'Backing blocks read', splitBackingBlocksRead);
  text.one('gauge', 'keiki_jobs_running', 'Jobs under way', plane.jobs.runningCount);
  text.one('gauge', 'keiki_nbd_clients', 'Clients in transmission', plane.exports.clientCount);
  const { usedBytes } = plane.options.memory.budget;
  text.one('gauge', 'keiki_nbd_held_bytes', 'Memory held for clients', usedBytes);
}

function addLocalLog(text: MetricsText, plane: ControlPlane): void {
  const { localLog } = plane.store.stats();
  if (localLog === undefined || localLog === null) return;
  const { sizeBytes, lagBytes, lagMs, groups, waits } = localLog;
  text.one('gauge', 'keiki_local_log_size_bytes', 'Size of the local log', sizeBytes);
  text.one('gauge', 'keiki_local_log_lag_bytes', 'What the object store lacks', lagBytes);
  text.one('gauge', 'keiki_local_log_lag_seconds', 'Age of the oldest of it', lagMs / 1000);
  text.one('counter', 'keiki_local_log_groups_total', 'Groups written', groups);
  text.one('counter', 'keiki_local_log_waits_total', 'Flushes that waited for S3', waits);
}

function addDevice(text: MetricsText, plane: ControlPlane): void {
  const times = plane.options.deviceTimes;
  if (times === undefined) return;
  text.metric('histogram', 'keiki_device_seconds', 'Device calls; log: durable writes of the log');
  for (const [operation, histogram] of Object.entries(times)) {
    text.histogram('keiki_device_seconds', { operation }, histogram);
  }
}

function addObjects(text: MetricsText, plane: ControlPlane): void {
  const counters = plane.options.objectCounters;
  if (counters === undefined) return;
  const meters = Object.entries(counters.meters);
  text.metric('histogram', 'keiki_objects_seconds', 'Requests to the object store');
  for (const [verb, { times }] of meters) text.histogram('keiki_objects_seconds', { verb }, times);
  text.metric('counter', 'keiki_objects_bytes_total', 'Bytes of objects put and got');
  for (const [verb, { bytes }] of meters) text.sample('keiki_objects_bytes_total', { verb }, bytes);
  text.metric('counter', 'keiki_objects_errors_total', 'Requests that failed');
  for (const [verb, { errors }] of meters) {
    text.sample('keiki_objects_errors_total', { verb }, errors);
  }
  const { unknown } = counters.meters.put;
  text.one('counter', 'keiki_objects_unknown_total', 'Puts whose outcome had to be read', unknown);
  text.one('counter', 'keiki_objects_retries_total', 'Sent again', counters.retries());
}

function addObjectLog(text: MetricsText, plane: ControlPlane): void {
  const stats = objectStatsOf(plane.store.stats(), plane.options.objectCounters);
  if (stats === undefined) return;
  const { cleaner, cache, orphans, cost } = stats;
  text.one('gauge', 'keiki_records', 'Records with something live', stats.records);
  text.one('gauge', 'keiki_records_live_bytes', 'Live bytes in them', stats.liveBytes);
  text.one('gauge', 'keiki_records_kept_bytes', 'All bytes of them', stats.keptBytes);
  text.one('counter', 'keiki_placed_bytes_total', 'Data that was written', stats.placedBytes);
  text.one('counter', 'keiki_cleaner_records_total', 'Records emptied', cleaner.recordsEmptied);
  text.metric('counter', 'keiki_cleaner_blocks_total', 'Blocks the cleaner placed anew');
  text.sample('keiki_cleaner_blocks_total', { kind: 'data' }, cleaner.dataBlocksMoved);
  text.sample('keiki_cleaner_blocks_total', { kind: 'meta' }, cleaner.metaBlocksMoved);
  text.metric('counter', 'keiki_block_cache_blocks_total', 'Blocks asked for, by where they were');
  text.sample('keiki_block_cache_blocks_total', { from: 'memory' }, cache.memoryHits);
  text.sample('keiki_block_cache_blocks_total', { from: 'file' }, cache.fileHits);
  text.sample('keiki_block_cache_blocks_total', { from: 'objects' }, cache.misses);
  text.one('gauge', 'keiki_block_cache_file_bytes', 'Blocks in the cache file', cache.fileBytes);
  text.one('counter', 'keiki_orphans_deleted_total', 'Objects nothing named', orphans.deleted);
  if (cost === null) return;
  text.metric(
    'gauge',
    'keiki_cost_month',
    'A month at the pace of the last hour, in your currency',
  );
  for (const of of ['requests', 'egress', 'storage'] as const) {
    text.sample('keiki_cost_month', { of }, cost.month[of]);
  }
}

function addVdisks(text: MetricsText, plane: ControlPlane): void {
  const vdisks = plane.exports.vdisks();
  text.metric('gauge', 'keiki_vdisk_size_bytes', 'Size that clients see');
  for (const { name, sizeBytes } of vdisks) {
    text.sample('keiki_vdisk_size_bytes', { vdisk: name }, sizeBytes);
  }
  text.metric('gauge', 'keiki_vdisk_mapped_bytes', 'Data that its own tree names');
  for (const { name, mappedBytes } of vdisks) {
    text.sample('keiki_vdisk_mapped_bytes', { vdisk: name }, mappedBytes);
  }
  const meters = plane.exports.meters().flatMap(([vdisk, meter]) =>
    OPERATION_NAMES.map((operation) => ({
      labels: { vdisk, operation },
      meter: meter[operation],
    })).filter((each) => each.meter.times.count > 0),
  );
  text.metric('counter', 'keiki_operation_bytes_total', 'Bytes moved');
  for (const { labels, meter } of meters) {
    text.sample('keiki_operation_bytes_total', labels, meter.bytes);
  }
  text.metric('counter', 'keiki_operation_errors_total', 'Operations that failed');
  for (const { labels, meter } of meters) {
    text.sample('keiki_operation_errors_total', labels, meter.errors);
  }
  text.metric('histogram', 'keiki_operation_seconds', 'Operations of clients');
  for (const { labels, meter } of meters) {
    text.histogram('keiki_operation_seconds', labels, meter.times);
  }
}

class MetricsText {
  readonly #lines: string[] = [];

  metric(type: 'gauge' | 'counter' | 'histogram' | 'summary', name: string, help: string): void {
    this.#lines.push(`# HELP ${name} ${help}.`, `# TYPE ${name} ${type}`);
  }

  one(type: 'gauge' | 'counter', name: string, help: string, value: number): void {
    this.metric(type, name, help);
    this.sample(name, {}, value);
  }

  sample(name: string, labels: Labels, value: number): void {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
    const braces = pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
    this.#lines.push(`${name}${braces} ${value}`);
  }

  histogram(name: string, labels: Labels, histogram: Histogram): void {
    const sums = histogram.cumulative();
    for (let index = 1; index < sums.length; index += BOUND_STEP) {
      const le = String((BUCKET_MS[index] as number) / 1000);
      this.sample(`${name}_bucket`, { ...labels, le }, sums[index] as number);
    }
    this.sample(`${name}_bucket`, { ...labels, le: '+Inf' }, histogram.count);
    this.sample(`${name}_sum`, labels, histogram.sumMs / 1000);
    this.sample(`${name}_count`, labels, histogram.count);
  }

  toString(): string {
    return `${this.#lines.join('\n')}\n`;
  }
}

function escapeLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
