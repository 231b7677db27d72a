/** The CUDA devices of this machine: what they are now, and whether a sweep can use them. */
import type { DeviceInfo, DeviceVitals } from '../contract/api.ts';
import { expected } from '../contract/input-error.ts';
import type { Gpu } from '../contract/session.ts';
import { BackendFailure, type Ceilings } from '../engine/ports.ts';
import type { CudaDevice, CudaReport } from '../worker/addon-types.ts';
import type { Supervisor } from '../worker/supervisor.ts';

const nameOf = (device: number): string => `cuda:${device}`;
const indexOf = (name: string): number => Number(name.slice('cuda:'.length));

/** Devices with their ceilings, measured now; or one that cannot be used, with cause and remedy. */
export async function cudaDevices(backend: Supervisor): Promise<readonly DeviceInfo[]> {
  const report = await reportOf(backend);
  if (report.devices.length === 0) return [{ backend: nameOf(0), usable: false, reason: String(report.reason) }];
  const devices: DeviceInfo[] = [];
  for (const [index, device] of report.devices.entries()) devices.push(await deviceOf(backend, index, device));
  return devices;
}

/** Of a usable backend, measured now. */
export async function ceilingsOf(name: string, backend: Supervisor): Promise<Ceilings> {
  if (name === 'cpu') return backend.ceilings();
  const { matrixFlopsPerSecond, copyBytesPerSecond } = await backend.cudaCeilings(indexOf(name));
  return { fmaFlopsPerSecond: matrixFlopsPerSecond, readBytesPerSecond: copyBytesPerSecond };
}

async function deviceOf(backend: Supervisor, index: number, device: CudaDevice): Promise<DeviceInfo> {
  const { multiprocessors, runtimeCudaVersion, freeBytes, cacheBytes, memoryClockMHz, ...told } = device;
  try {
    return { backend: nameOf(index), usable: true, ...told, ...(await ceilingsOf(nameOf(index), backend)) };
  } catch (error) {
    if (error instanceof BackendFailure)
      return { backend: nameOf(index), usable: false, ...told, reason: error.message };
    throw error;
  }
}

/** Of those whose memory the driver tells. Old figures would be wrong ones: where it fails there are none. */
export async function cudaVitals(backend: Supervisor): Promise<readonly DeviceVitals[]> {
  const states = await backend.cudaVitals().catch(() => []);
  return states.flatMap(
    ({ memoryBytes, freeBytes, clockMHz, temperatureCelsius, powerWatts, powerLimitWatts }, index) =>
      memoryBytes === undefined || freeBytes === undefined
        ? []
        : {
            ...{ backend: nameOf(index), memoryBytes, memoryFreeBytes: freeBytes },
            ...(clockMHz !== undefined && { clockHz: clockMHz * 1e6 }),
            ...(temperatureCelsius !== undefined && { temperatureCelsius }),
            ...(powerWatts !== undefined && { powerWatts }),
            ...(powerLimitWatts !== undefined && { powerLimitWatts }),
          },
  );
}

async function reportOf(backend: Supervisor): Promise<CudaReport> {
  try {
    return await backend.cuda();
  } catch (error) {
    if (error instanceof BackendFailure) return { devices: [], reason: error.message };
    throw error;
  }
}

/**
 * The GPUs among backends that are wanted, as the driver tells of them.
 * @throws InputError for one that cannot be used
 */
export async function wantedDevices(
  backends: readonly string[],
  backend: Supervisor,
): Promise<ReadonlyMap<string, CudaDevice>> {
  const wanted = [...new Set(backends)].filter((name) => name !== 'cpu').sort();
  if (wanted.length === 0) return new Map();
  const { devices, reason } = await reportOf(backend);
  const cause = reason ?? `this machine has ${devices.length} CUDA ${devices.length === 1 ? 'device' : 'devices'}`;
  return new Map(
    wanted.map((name) => {
      const device = devices[indexOf(name)];
      if (!device) throw expected('a usable backend', 'backend', `${name}: ${cause}`);
      return [name, device];
    }),
  );
}

/** The same with their ceilings, measured now. */
export async function gpusOf(backends: readonly string[], backend: Supervisor): Promise<readonly Gpu[]> {
  const gpus: Gpu[] = [];
  for (const [name, device] of await wantedDevices(backends, backend))
    gpus.push({ backend: name, ...device, ...(await backend.cudaCeilings(indexOf(name))) });
  return gpus;
}
