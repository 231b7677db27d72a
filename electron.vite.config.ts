/**
 * The desktop app. So far it has its window, which the web host serves; the main process and the preload script join here
 * when the Electron host exists (the preload as CommonJS: a sandboxed one cannot be a module).
 */
import { defineConfig } from 'electron-vite';
import renderer from './src-renderer/vite.config.ts';

export default defineConfig({
  renderer: { ...renderer, build: { ...renderer.build, rollupOptions: { input: 'src-renderer/index.html' } } },
});
