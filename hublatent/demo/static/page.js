/* What the page does by itself. Gradio calls this once, when the page is there. */
() => {
  const $ = (selector) => document.querySelector(selector);
  const slider = () => $("#strength input[type=number]");

  function setSlider(value) {
    const input = slider();
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, value);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /* An answer for rows that have been replaced meanwhile finds none of its key. */
  function move(moves) {
    for (const move of moves || []) {
      const row = $(`.hl-row[data-key="${move.key}"]`);
      if (!row) continue;
      row.querySelector(".hl-verdict").textContent = move.verdict;
      row.querySelector(".hl-numbers").textContent = move.numbers;
      row.querySelector(".hl-dot").dataset.level = move.level;
      const image = row.querySelector(".hl-edited img");
      delete image.dataset.edited;
      Object.assign(image, move.edited);
      drawDifference(row);
    }
  }

  /* Where the edit is brighter (red) or darker (blue), once its row's details are open. The colours
     (ColorBrewer's RdBu) are full at 0.4 of the way from black to white. */
  async function drawDifference(row) {
    if (!row.querySelector("details").open) return;
    const canvas = row.querySelector(".hl-difference canvas");
    const images = [...row.querySelectorAll(".hl-edited img, .hl-unedited img")];
    await Promise.all(images.map((image) => image.decode()));
    const side = (canvas.width = canvas.height = row.querySelector(".hl-unedited img").naturalWidth);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const grey = (name) => {
      context.drawImage(row.querySelector(`.hl-${name} img`), 0, 0, side, side);
      const { data } = context.getImageData(0, 0, side, side);
      return Array.from({ length: side * side }, (_, i) =>
        (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3);
    };
    const [edited, unedited] = [grey("edited"), grey("unedited")];
    const map = context.createImageData(side, side);
    edited.forEach((level, i) => {
      const share = Math.max(-1, Math.min(1, (level - unedited[i]) / 255 / 0.4));
      const end = share < 0 ? [33, 102, 172] : [178, 24, 43];
      for (const c of [0, 1, 2]) map.data[4 * i + c] = 247 + Math.abs(share) * (end[c] - 247);
      map.data[4 * i + 3] = 255;
    });
    context.putImageData(map, 0, 0);
  }
  /* "toggle" does not bubble. */
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.(".hl-details")) drawDifference(event.target.closest(".hl-row"));
  }, true);

  /* The address follows what is shown: one entry in the history for each change, and one for a
     drag of the slider, however many values it passed. Browsers limit how often that may be. */
  let settled = null;
  function write(query) {
    if (!query || query === location.search) return;
    const call = history.state?.hublatent ? "pushState" : "replaceState";
    try { history[call]({ hublatent: true }, "", query); } catch (error) {}
  }
  function remember(query) {
    clearTimeout(settled);
    /* What the page opened with is written at once: a click within the time that a drag takes to
       settle would replace it, and Back would leave the page. */
    if (history.state?.hublatent) settled = setTimeout(write, 250, query);
    else write(query);
  }
  window.addEventListener("popstate", () => clearTimeout(settled));

  function download(file) {
    if (!file) return;
    const link = document.createElement("a");
    [link.href, link.download] = [file.src, file.name];
    link.click();
  }

  /* On a phone one model is shown at a time. */
  let chosen = null;
  let linked = new URLSearchParams(location.search).has("changes");
  function showModel(name) {
    for (const row of document.querySelectorAll(".hl-row"))
      row.classList.toggle("hl-shown", row.dataset.model === name);
    for (const tab of document.querySelectorAll("[data-tab]"))
      tab.setAttribute("aria-pressed", tab.dataset.tab === name);
  }
  function showChosen() {
    const rows = [...document.querySelectorAll(".hl-row")];
    if (rows.length && linked) {
      linked = false;
      $("#compose-tab-button")?.click();
    }
    if (!rows.length || rows.some((row) => row.classList.contains("hl-shown"))) return;
    const row = rows.find((row) => row.dataset.model === chosen) || rows[0];
    showModel(row.dataset.model);
  }
  new MutationObserver(showChosen).observe(document.body, { childList: true, subtree: true });
  showChosen();

  let sweep = null;
  function play(button) {
    if (sweep) {
      clearInterval(sweep);
      sweep = null;
      button.textContent = "Play";
      return;
    }
    const range = $("#strength input[type=range]");
    const [low, high, start] = [Number(range.min), Number(range.max), Number(slider().value)];
    let way = 0;
    button.textContent = "Stop";
    sweep = setInterval(() => {
      way += 1 / 24;
      if (way >= 1) {
        setSlider(start);
        play(button);
      } else {
        setSlider((low + ((high - low) * (1 - Math.cos(2 * Math.PI * way))) / 2).toFixed(1));
      }
    }, 180);
  }

  function hold(figure, held) {
    const image = figure.querySelector("img");
    const unedited = figure.closest(".hl-row").querySelector(".hl-unedited img");
    if (held && !image.dataset.edited) {
      image.dataset.edited = image.src;
      image.src = unedited.src;
    } else if (!held && image.dataset.edited) {
      image.src = image.dataset.edited;
      delete image.dataset.edited;
    }
  }

  function toggle(target) {
    const open = document.getElementById(target.dataset.toggle).classList.toggle("hl-open");
    target.setAttribute("aria-expanded", open);
  }

  const actions = {
    undo: () => history.back(),
    redo: () => history.forward(),
    play,
    theme: () => {
      const dark = document.body.classList.toggle("dark");
      try { localStorage.setItem("hublatent-theme", dark ? "dark" : "light"); } catch (error) {}
    },
    share: async (button) => {
      try {
        await navigator.clipboard.writeText(location.href);
        button.textContent = "Link copied";
      } catch (error) {
        prompt("The link to this view:", location.href);
      }
      setTimeout(() => { button.textContent = "Share"; }, 2000);
    },
  };

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-toggle], [data-action], [data-tab]");
    if (!target) return;
    if (target.dataset.toggle) toggle(target);
    else if (target.dataset.action) actions[target.dataset.action](target);
    else showModel((chosen = target.dataset.tab));
  });
  /* What is typed into a list's box replaces what stands there. */
  document.addEventListener("focusin", (event) => {
    if (event.target.matches('#attribute input, #map-attribute input')) event.target.select();
  });
  /* Before and after: the border moves in all composed pictures at once. */
  const divide = (share) => document.body.style.setProperty("--hl-before", `${100 * share}%`);
  document.addEventListener("input", (event) => {
    if (event.target.matches(".hl-divide")) divide(event.target.value / 100);
  });
  document.addEventListener("pointermove", (event) => {
    const box = event.buttons && event.target.closest?.(".hl-compare")?.getBoundingClientRect();
    if (!box) return;
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    divide(share);
    $(".hl-divide").value = 100 * share;
  });
  const figureOf = (event) => event.target.closest?.(".hl-edited");
  document.addEventListener("pointerdown", (event) => {
    if (figureOf(event)) hold(figureOf(event), true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || !figureOf(event)) return;
    event.preventDefault();
    hold(figureOf(event), true);
  });
  for (const end of ["pointerup", "pointercancel", "keyup"])
    document.addEventListener(end, () => {
      for (const figure of document.querySelectorAll(".hl-edited")) hold(figure, false);
    });

  try {
    const theme = localStorage.getItem("hublatent-theme");
    if (theme) document.body.classList.toggle("dark", theme === "dark");
  } catch (error) {}
  window.hublatent = { move, remember, download };
}
