/** What a processor is like this moment. Only what the system really measures: what it does not tell is absent. */
import { readdir, readFile } from 'node:fs/promises';
import os from 'node:os';
import { join } from 'node:path';
import type { DeviceVitals } from '../contract/api.ts';

/** Sensors that sit in or on a processor, by the names of their Linux drivers. */
const processorSensors: readonly string[] = ['coretemp', 'k10temp', 'zenpower', 'cpu_thermal'];
const processorZones = /^(x86_pkg_temp|cpu|soc).*|.*cpu.*thermal.*$/i;
/** Beyond these a sensor reports nonsense: some say -128 or 255 when they have nothing to say. */
const possibleCelsius = [-40, 130] as const;

/** @param root of the file system that is asked */
export async function cpuVitals(root = '/'): Promise<DeviceVitals> {
  const [clockHz, temperatureCelsius, available] = await Promise.all([clock(root), temperature(root), memory(root)]);
  return {
    backend: 'cpu',
    memoryBytes: os.totalmem(),
    memoryFreeBytes: available ?? os.freemem(),
    ...(clockHz === undefined ? {} : { clockHz }),
    ...(temperatureCelsius === undefined ? {} : { temperatureCelsius }),
  };
}

/**
 * Mean over the cores. A virtual machine has no such files, and the clock that others report (`os.cpus()`, `/proc/cpuinfo`)
 * is what is printed on the box: neither is shown as one that was read.
 */
async function clock(root: string): Promise<number | undefined> {
  const folder = join(root, 'sys/devices/system/cpu');
  const cores = (await list(folder)).filter((name) => /^cpu\d+$/.test(name));
  const kilohertz = await numbers(cores.map((core) => join(folder, core, 'cpufreq/scaling_cur_freq')));
  return kilohertz.length === 0
    ? undefined
    : (1000 * kilohertz.reduce((sum, value) => sum + value, 0)) / kilohertz.length;
}

/** The hottest sensor of the processor. */
async function temperature(root: string): Promise<number | undefined> {
  const monitors = join(root, 'sys/class/hwmon');
  const inputs: string[] = [];
  for (const monitor of await list(monitors)) {
    const folder = join(monitors, monitor);
    if (!processorSensors.includes((await text(join(folder, 'name'))) ?? '')) continue;
    inputs.push(
      ...(await list(folder)).filter((name) => /^temp\d+_input$/.test(name)).map((name) => join(folder, name)),
    );
  }
  if (inputs.length === 0) {
    const zones = join(root, 'sys/class/thermal');
    for (const zone of (await list(zones)).filter((name) => name.startsWith('thermal_zone')))
      if (processorZones.test((await text(join(zones, zone, 'type'))) ?? '')) inputs.push(join(zones, zone, 'temp'));
  }
  const [least, most] = possibleCelsius;
  const celsius = (await numbers(inputs)).map((milli) => milli / 1000).filter((value) => value > least && value < most);
  return celsius.length === 0 ? undefined : Math.max(...celsius);
}

/** What a new program could have without swapping; the free memory of others is far less, because files are cached in it. */
async function memory(root: string): Promise<number | undefined> {
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec((await text(join(root, 'proc/meminfo'))) ?? '')?.[1];
  return kibibytes === undefined ? undefined : 1024 * Number(kibibytes);
}

const text = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').then(
    (content) => content.trim(),
    () => undefined,
  );

const list = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);

async function numbers(paths: readonly string[]): Promise<number[]> {
  const texts = await Promise.all(paths.map(text));
  return texts
    .filter((value) => value !== undefined && value !== '')
    .map(Number)
    .filter(Number.isFinite);
}
