import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { cpuVitals } from '../../src-main/hosts/vitals.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(os.tmpdir(), 'fastmqa-vitals-'));
});
afterEach(() => rmSync(root, { recursive: true }));

const give = (files: Record<string, string>): void => {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), `${content}\n`);
  }
};

test('clock is the mean of the cores, temperature the hottest sensor of the processor, memory what a program could have', async () => {
  give({
    'sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq': '3000000',
    'sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq': '4000000',
    'sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq': '1',
    'sys/class/hwmon/hwmon0/name': 'nvme',
    'sys/class/hwmon/hwmon0/temp1_input': '91000',
    'sys/class/hwmon/hwmon1/name': 'k10temp',
    'sys/class/hwmon/hwmon1/temp1_input': '61250',
    'sys/class/hwmon/hwmon1/temp3_input': '48000',
    'sys/class/hwmon/hwmon1/temp4_input': '255000',
    'proc/meminfo': 'MemTotal:       8000000 kB\nMemFree:         100000 kB\nMemAvailable:   5000000 kB',
  });
  expect(await cpuVitals(root)).toEqual({
    backend: 'cpu',
    clockHz: 3.5e9,
    temperatureCelsius: 61.25,
    memoryBytes: os.totalmem(),
    memoryFreeBytes: 5_000_000 * 1024,
  });
});

test('without such a sensor the thermal zone of the processor tells', async () => {
  give({
    'sys/class/thermal/thermal_zone0/type': 'acpitz',
    'sys/class/thermal/thermal_zone0/temp': '20000',
    'sys/class/thermal/thermal_zone1/type': 'x86_pkg_temp',
    'sys/class/thermal/thermal_zone1/temp': '57000',
  });
  expect((await cpuVitals(root)).temperatureCelsius).toBe(57);
});

test('what a system does not tell is absent, and nothing fails', async () => {
  expect(await cpuVitals(root)).toEqual({
    backend: 'cpu',
    memoryBytes: os.totalmem(),
    memoryFreeBytes: expect.any(Number),
  });
  give({ 'sys/class/hwmon/hwmon0/name': 'coretemp', 'sys/class/hwmon/hwmon0/temp1_input': 'broken' });
  expect(await cpuVitals(root)).not.toHaveProperty('temperatureCelsius');
});
