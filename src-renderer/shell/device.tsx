/** What measures: its name, and what it is like this moment. */
import { Tooltip } from '@mantine/core';
import { useEffect } from 'react';
import { useStore } from 'zustand';
import type { DeviceInfo, DeviceVitals } from '../../src-main/contract/api.ts';
import { formatBytes, formatMetric } from '../../src-main/contract/format.ts';
import { useApp, useRun } from '../panels/use-app.ts';
import classes from './top-bar.module.css';

export function Device() {
  const { catalogue, vitals } = useApp();
  const devices = useStore(catalogue, (store) => store.devices);
  const now = useStore(vitals, (store) => store.devices);
  const asked = useRun(({ sweep }) => sweep?.axes.backend?.[0]);
  useEffect(() => vitals.follow(() => document.hidden), [vitals]);
  const usable = devices?.filter((device) => device.usable);
  const used = usable?.find(({ backend }) => backend === asked) ?? usable?.[0];
  const vitalsOf = (backend: string | undefined) => now.find((device) => device.backend === backend);
  const label = devices?.map((device) => detailsOf(device, vitalsOf(device.backend))).join('\n\n');
  return (
    <Tooltip
      label={label ?? 'Looking for devices'}
      events={{ hover: true, focus: true, touch: true }}
      multiline
      maw={420}
      style={{ whiteSpace: 'pre-line' }}
    >
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: its tooltip must be reached by keyboard */}
      <section className={classes.device} aria-label="Device" tabIndex={0}>
        <span>{used ? nameOf(used) : devices ? 'no device' : '…'}</span>
        <small>{inWords(vitalsOf(used?.backend))}</small>
      </section>
    </Tooltip>
  );
}

const nameOf = ({ backend, threads, instructionSet, name }: DeviceInfo): string =>
  [backend, ...(threads === undefined ? [name] : [`${threads} threads`, instructionSet])].filter(Boolean).join(' · ');

const celsius = (degrees: number): string => `${Math.round(degrees)} °C`;
const watts = (power: number): string => `${Math.round(power)} W`;
const gigahertz = (hertz: number): string => `${(hertz / 1e9).toFixed(2)} GHz`;

/** What the system does not tell is not there. */
function inWords(vitals: DeviceVitals | undefined): string {
  if (!vitals) return '';
  const { clockHz, temperatureCelsius, powerWatts, memoryFreeBytes } = vitals;
  return [
    ...(clockHz === undefined ? [] : [gigahertz(clockHz)]),
    ...(temperatureCelsius === undefined ? [] : [celsius(temperatureCelsius)]),
    ...(powerWatts === undefined ? [] : [watts(powerWatts)]),
    `${formatBytes(memoryFreeBytes)} free`,
  ].join(' · ');
}

function detailsOf(device: DeviceInfo, vitals: DeviceVitals | undefined): string {
  const { backend, usable, name, reason } = device;
  if (!usable) return `${backend}: ${reason}`;
  const lines = [`${backend}: ${name ?? ''}`];
  if (device.fmaFlopsPerSecond) lines.push(`measured ${formatMetric(device.fmaFlopsPerSecond, 'FLOP/s')}`);
  if (device.readBytesPerSecond) lines.push(`reads ${formatMetric(device.readBytesPerSecond, 'bytes/s')}, measured`);
  if (!vitals) return lines.join('\n');
  const { clockHz, temperatureCelsius, powerWatts, powerLimitWatts, memoryBytes, memoryFreeBytes } = vitals;
  lines.push(`memory: ${formatBytes(memoryFreeBytes)} of ${formatBytes(memoryBytes)} free`);
  lines.push(clockHz === undefined ? 'clock: this system does not tell' : `clock now: ${gigahertz(clockHz)}`);
  lines.push(
    temperatureCelsius === undefined
      ? 'temperature: this system does not tell'
      : `temperature: ${celsius(temperatureCelsius)}`,
  );
  if (powerWatts !== undefined)
    lines.push(`power: ${watts(powerWatts)}${powerLimitWatts === undefined ? '' : ` of ${watts(powerLimitWatts)}`}`);
  return lines.join('\n');
}
