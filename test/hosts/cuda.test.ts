import { expect, it } from 'vitest';
import { BackendFailure } from '../../src-main/engine/ports.ts';
import { cudaDevices, cudaVitals, gpusOf } from '../../src-main/hosts/cuda.ts';
import type { CudaDevice, CudaReport } from '../../src-main/worker/addon-types.ts';
import type { Supervisor } from '../../src-main/worker/supervisor.ts';

const device: CudaDevice = {
  name: 'NVIDIA H100 80GB HBM3',
  computeCapability: '9.0',
  multiprocessors: 132,
  driverCudaVersion: '13.0',
  runtimeCudaVersion: '13.0',
  memoryBytes: 8.5e10,
  freeBytes: 8.4e10,
  cacheBytes: 5e7,
  clockMHz: 345,
  temperatureCelsius: 36,
};
const ceilings = { matrixFlopsPerSecond: 6e14, copyBytesPerSecond: 2.9e12 };

const machine = (report: CudaReport | BackendFailure) =>
  ({
    cuda: () => (report instanceof BackendFailure ? Promise.reject(report) : Promise.resolve(report)),
    cudaCeilings: () => Promise.resolve(ceilings),
  }) as unknown as Supervisor;

it('lists devices with their ceilings and their state', async () => {
  const [first, second] = await cudaDevices(machine({ devices: [device, device] }));
  expect(first).toMatchObject({ backend: 'cuda:0', usable: true, clockMHz: 345, fmaFlopsPerSecond: 6e14 });
  expect(second).toMatchObject({ backend: 'cuda:1', name: device.name, readBytesPerSecond: 2.9e12 });
});

it('says why there is none', async () => {
  const reason = 'no NVIDIA driver (libcuda.so.1 is not found): install the driver, then run the command again';
  expect(await cudaDevices(machine({ devices: [], reason }))).toEqual([{ backend: 'cuda:0', usable: false, reason }]);
  const crashed = new BackendFailure('crashed', 'worker ended by SIGSEGV', true);
  expect(await cudaDevices(machine(crashed))).toMatchObject([{ usable: false, reason: 'worker ended by SIGSEGV' }]);
});

it('refuses a sweep on a device that is not there, in one sentence', async () => {
  await expect(gpusOf(['cuda:2'], machine({ devices: [device] }))).rejects.toThrow(
    'expected a usable backend for backend but received cuda:2: this machine has 1 CUDA device',
  );
  await expect(gpusOf(['cpu', 'cuda:0'], machine({ devices: [], reason: 'no driver' }))).rejects.toThrow(
    'expected a usable backend for backend but received cuda:0: no driver',
  );
});

it('tells clock, heat, power and memory of each device, and nothing that the driver does not tell', async () => {
  const told = (states: unknown) => cudaVitals({ cudaVitals: () => states } as unknown as Supervisor);
  const state = {
    memoryBytes: 8.5e10,
    freeBytes: 8e10,
    clockMHz: 1980,
    temperatureCelsius: 41,
    powerWatts: 310.5,
    powerLimitWatts: 700,
  };
  expect(await told(Promise.resolve([{}, state]))).toEqual([
    {
      ...{ backend: 'cuda:1', memoryBytes: 8.5e10, memoryFreeBytes: 8e10, clockHz: 1.98e9 },
      ...{ temperatureCelsius: 41, powerWatts: 310.5, powerLimitWatts: 700 },
    },
  ]);
  expect(await told(Promise.reject(new BackendFailure('crashed', 'worker ended by SIGSEGV', true)))).toEqual([]);
});

it('asks nothing of a GPU for a sweep on the CPU', async () => {
  expect(await gpusOf(['cpu'], {} as Supervisor)).toEqual([]);
  expect(await gpusOf(['cuda:0', 'cuda:0', 'cpu'], machine({ devices: [device] }))).toMatchObject([
    { backend: 'cuda:0', ...ceilings },
  ]);
});
